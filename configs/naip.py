"""NAIP aerial images at 1 m/px, conditioned on a ViT-B/16 trained by DINO (768).

    python -m ssldiff_jax.main --config=configs/naip.py --workdir=/data/run \
        --config.data.slides='/data/naip/*.tif'

Published: 667 000 patches of 256 px (Chesapeake land cover), batch 256 on each of 6 GPUs.
Hardware and hours: 624 GFLOP for each patch trained; 60 epochs (26 000 steps of 1536) are 18 h
of one H200 at an MFU of 0.4, estimated as in configs/tcga.py. Expected: patch FID 11.5, crop FID
43.76 and CLIP FID 6.86 at 1024². The prior learns 4 × 4 grids, as published, conditioned on their
land cover, measured in the infrared band.
"""

from configs import default


def get_config():
    """The published sizes."""
    config = default.get_config()
    every_square_counts(config.data)
    config.data.holdout.case_regex = r"m_\d{7}"
    config.encoder.model.vit.width = 768
    config.encoder.model.vit.num_heads = 12
    config.prior.conditions.measure = "landcover"
    config.evaluate.classes = "landcover"
    config.denoiser.train.num_steps = 26_000
    config.denoiser.train.batch_size = 1536
    return config


def every_square_counts(data) -> None:
    """No tissue is looked for, at 1 m/px."""
    data.patch_metres = 1.0
    data.tissue.mpp = 16e6
    data.tissue.min_saturation = 0.0
    data.tissue.max_saturation = 0.0
    data.tissue.min_luminance = 0.0
    data.tissue.pen_chroma = 0.0
    data.tissue.fold_density = 0.0
    data.tissue.smooth_radius_um = 0.0
    data.records.min_tissue = 0.0
