"""Patch classification on BACH, four classes of breast tissue, with a denoiser of TCGA-BRCA.

    python -m ssldiff_jax.main --config=configs/bach_study.py --workdir=/data/bach_run \
        --config.data.slides=folder:/data/bach \
        --config.encoder.weights=/data/run/export/encoder.safetensors \
        --config.autoencoder.weights=/data/run/export/denoiser.safetensors \
        --config.denoiser.weights=/data/run/export/denoiser.safetensors \
        --config.stages=patches,encoder,embeddings,autoencoder,latents,denoiser,study

Data (not here): BACH's images cut into squares of 256 px at 0.5 µm/px, in a folder for each class
(Normal, Benign, InSitu, Invasive), named so that `data.holdout.case_regex` finds their image. All
weights are used as they are: those of a run of configs/tcga.py, written by its tool `export`; the
scale of latents is measured anew, on BACH (--config.autoencoder.latent_scaling=none for weights
that were published without one).
Expected: accuracy 78 of real, 70 of synthetic only, 83 of real + synthetic (LRDM, CVPR 2024), by
classifiers and splits of its authors; ours are rows of fraction 1 of `study/results.json`.
Hardware and hours, estimated from FLOPs: 12 steps of 208 GFLOP, 7 of them guided, are 4 TFLOP a
patch; 9000 training patches drawn twice are 4 min of one H200 at 40 % of its peak of 790 TFLOP/s.
"""

from configs import default


def get_config():
    """The published denoiser's sizes, a list of patches, classes as they are recorded."""
    config = default.get_config()
    config.data.mpp = config.data.patch_mpp = 0.5
    config.data.holdout.fraction = 0.25
    config.data.holdout.case_regex = r"(?:n|b|is|iv)\d{3}"
    # The weights that the command line names, as they are.
    for section in (config.encoder, config.autoencoder, config.denoiser):
        section.train.num_steps = 0
    config.sample.conditioning = "interpolated"
    study = config.study
    study.tasks = ("patches",)
    study.fractions = (0.1, 1.0)
    study.patches.labels = "recorded"
    study.patches.count = study.patches.count_test = 0
    networks_of_256_px(study.patches.network)
    return config


def networks_of_256_px(network) -> None:
    """A ResNet of 64, 128 and 256 channels and a ViT of 192, for one GPU."""
    network.resnet_width = 64
    network.vit_width = 192
    network.vit_depth = 6
    network.vit_patch_px = 16
    network.fit.num_steps = 5000
    network.fit.batch_size = 128
    network.fit.learning_rate = 5e-4
