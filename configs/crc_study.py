"""Patch classification on CRC-VAL-HE-7K, nine tissues, with a denoiser of TCGA-CRC and Phikon.

    python -m ssldiff_jax.main --config=configs/crc_study.py --workdir=/data/crc_run \
        --config.data.slides=folder:/data/crc_he --config.encoder.weights=/weights/phikon \
        --config.autoencoder.latent_scaling=none \
        --config.autoencoder.weights=/weights/vq-f4.ckpt --config.denoiser.weights=/weights/crc \
        --config.stages=patches,encoder,embeddings,autoencoder,latents,denoiser,study

Data (not here): the patches of 224 px at 0.5 µm/px in a folder for each tissue, ADI … TUM; the
denoiser's window is then 56 latents instead of 64.
Expected: accuracy 93.8 of real, 90.19 of synthetic only, 96.27 of real + synthetic (LRDM, CVPR
2024), by classifiers and splits of its authors; ours are rows of fraction 1.
Hardware and hours: as configs/bach_study.py.
"""

from configs import bach_study


def get_config():
    """BACH's study with another encoder and smaller patches."""
    config = bach_study.get_config()
    # The weights that the command line names, as they are.
    for section in (config.encoder, config.autoencoder, config.denoiser):
        section.train.num_steps = 0
    config.data.holdout.case_regex = r"TCGA-\w+"
    config.encoder.name = "phikon"
    config.data.records.record_px = config.data.records.stride_px = 224
    config.data.crops.patch_px = 224
    for section in (config.encoder, config.judge):
        section.model.vit.image_px = 224
    return config
