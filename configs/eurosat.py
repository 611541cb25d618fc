"""EuroSAT: 27 000 Sentinel-2 patches of 64 px at 10 m/px through TFDS, all in one list.

    python -m ssldiff_jax.main --config=configs/eurosat.py --workdir=/data/eurosat

Data: eurosat/rgb (Helber et al. 2019, MIT), downloaded at the first run (90 MB; TFDS needs
TensorFlow for that, once). Patches come alone: a tenth of them is held out, some of those are
regenerated one by one, and there is no region to compare a large image with; Generator.generate
makes large images from any grid of their embeddings.
Hardware and hours: 14 GFLOP for each patch the denoiser (66 M parameters) is trained on; 30.7 M
patches (60 000 steps of 512) are 0.3 h of one H200 at an MFU of 0.4, estimated as in
configs/tcga.py.
Expected: not measured.
"""

from configs import default


def get_config():
    """Small patches, a small UNet, every orientation."""
    config = default.get_config()
    config.data.slides = "tfds:eurosat/rgb"
    config.data.metres = config.data.patch_metres = 10.0
    config.data.records.record_px = config.data.records.stride_px = 64
    config.data.regions.rows = config.data.regions.cols = 8
    config.data.crops.patch_px = 64
    config.data.crops.num_crops = 190_000
    config.data.crops.dihedral = True
    default.small_encoder(config.encoder, px=64, num_steps=20_000)
    default.small_encoder(config.judge, px=64, num_steps=20_000, width=192)
    config.autoencoder.loss.adversarial.start_step = 10_000
    config.autoencoder.train.num_steps = 30_000
    config.denoiser.unet.channels = 128
    config.denoiser.unet.channel_mult = (1, 2, 3)
    config.denoiser.unet.attention_levels = (1, 2)
    config.denoiser.train.num_steps = 60_000
    config.denoiser.train.batch_size = 512
    config.sample.conditioning = "interpolated"
    config.evaluate.classes = "recorded"
    config.sample.windows.max_offset = 2
    config.sample.decode.tile = 16
    config.sample.decode.overlap = 4
    return config
