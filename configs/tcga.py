"""TCGA-BRCA at 20×, the published sizes: 400.92 M parameter UNet on 64×64×3 latents.

    python -m ssldiff_jax.main --config=configs/tcga.py --workdir=gs://bucket/run \
        --config.data.slides='/data/tcga/*.svs'

Trained from scratch throughout; the published model starts from published weights instead.
"""

from configs import default


def get_config():
    """The default, whose values are the published ones."""
    return default.get_config()
