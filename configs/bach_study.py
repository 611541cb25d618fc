"""Patch classification on BACH, four classes of breast tissue, with a denoiser of TCGA-BRCA.

    python -m ssldiff_jax.main --config=configs/bach_study.py --workdir=/data/bach_run \
        --config.data.slides=folder:/data/bach --config.models=/data/run \
        --config.stages=patches,study

Data (not here): BACH's images cut into squares of 256 px at 0.5 µm/px, in a folder for each class
(Normal, Benign, InSitu, Invasive), named so that `data.holdout.case_regex` finds their image. The
models are those of /data/run, a run of configs/tcga.py, as they are.
Expected: accuracy 78 of real, 70 of synthetic only, 83 of real + synthetic (LRDM, CVPR 2024), by
classifiers and splits of its authors; ours are rows of fraction 1 of `study/results.json`.
Hardware and hours, estimated from FLOPs: 12 steps of 208 GFLOP, 7 of them guided, are 4 TFLOP a
patch; 9000 training patches regenerated twice take 3 min of one H200 at an MFU of 0.4.
"""

from configs import tcga


def get_config():
    """The published denoiser's sizes, a list of patches, classes as they are recorded."""
    config = tcga.get_config()
    config.data.mpp = config.data.patch_mpp = 0.5
    config.data.holdout.fraction = 0.25
    config.data.holdout.case_regex = r"(?:n|b|is|iv)\d{3}"
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
