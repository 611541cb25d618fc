"""Colorectal histology without a slide archive: ten images of 5000² px through TFDS.

    python -m ssldiff_jax.main --config=configs/colorectal.py --workdir=/data/colorectal

Data: colorectal_histology_large (Kather et al. 2016, CC BY 4.0), 0.495 µm/px, downloaded at the
first run (0.7 GB; TFDS needs TensorFlow for that, once). The lower quarter of every image is held
out: the ten images are too few to hold out whole ones.
Hardware and hours: 66 GFLOP for each patch the denoiser (181 M parameters) is trained on; 25.6 M
patches (100 000 steps of 256) are 1.2 h of one H200 at an MFU of 0.4, estimated as in
configs/tcga.py.
Expected: not measured. The data are far fewer than the published 15 M patches.
"""

from configs import default


def get_config():
    """Patches of half the published side, cropped at any pixel and orientation."""
    config = default.get_config()
    config.data.slides = "tfds:colorectal_histology_large"
    config.data.mpp = config.data.patch_mpp = 0.495
    config.data.holdout.by = "area"
    config.data.holdout.fraction = 0.25
    config.data.records.stride_px = 128
    config.data.regions.rows = config.data.regions.cols = 8
    config.data.crops.patch_px = 128
    config.data.crops.num_crops = 200_000
    config.data.crops.context_px = 16
    config.data.crops.dihedral = True
    default.small_encoder(config.encoder, px=128, num_steps=30_000)
    default.small_encoder(config.judge, px=128, num_steps=30_000, width=192)
    config.autoencoder.loss.adversarial.start_step = 10_000
    config.autoencoder.train.num_steps = 40_000
    config.denoiser.unet.channels = 128
    config.denoiser.train.num_steps = 100_000
    config.denoiser.train.batch_size = 256
    config.sample.windows.max_offset = 4
    config.sample.decode.tile = 32
    config.sample.decode.overlap = 8
    return config
