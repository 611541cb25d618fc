"""TCGA-BRCA at 20× (0.5 µm/px): the published sizes, every model trained from scratch.

    python -m ssldiff_jax.main --config=configs/tcga.py --workdir=/data/run \
        --config.data.slides='/data/tcga/*.svs'

Published: 15 M patches of 256 px, UNet of 400.92 M parameters on 64×64×3 latents, batch 600.
Hardware and hours: 624 GFLOP for each patch trained; 90 M patches (150 000 steps) are 39 h of one
H200 at an MFU of 0.4 (of 989 TFLOP/s, its maker's dense bfloat16 rate). An estimate from FLOPs, not
a measurement, and of the denoiser alone.
The prior learns 4 × 4 grids, as published (context of 1024²); labels, expressions or captions of
cases come from `config.prior.conditions`. Its S network: 46 M parameters, 3.6 GFLOP a grid.
Expected: patch FID 6.98, crop FID 15.51 and CLIP FID 7.43 at 1024², embedding similarity 0.924
(as published: started from other published weights, and with two embeddings).

`--config=configs/tcga.py:paper` samples as the published code does, step for step.
"""

from configs import default


def get_config(mode: str = ""):
    """The default, whose values are the published ones; `paper` for its sampler as well."""
    config = default.get_config()
    if mode == "paper":
        default.sample_as_published(config)
    elif mode:
        raise ValueError(f"configs/tcga.py takes no mode or paper, got {mode!r}")
    return config
