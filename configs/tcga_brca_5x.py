"""TCGA-BRCA at 5× (2 µm/px), conditioned on CTransPath (768), computed elsewhere.

    python -m ssldiff_jax.main --config=configs/tcga_brca_5x.py --workdir=/data/run \
        --config.data.slides='/data/tcga/*.svs' --config.embeddings.source=/data/ctranspath \
        --config.autoencoder.weights=/weights/vq-f4.ckpt

`/data/ctranspath` holds one .h5 for each slide: features (N, 768) and coords (N, 2). Without it a
ViT-B/16 of our own is trained in CTransPath's place.
Published: 976 000 patches of 256 px, first stage VQ-f4 of latent diffusion, frozen. Hardware and
hours: 624 GFLOP for each patch trained; 60 epochs (97 600 steps of 600) are 26 h of one H200 at an
MFU of 0.4, estimated as in configs/tcga.py. Expected: patch FID 9.74, CLIP FID 6.64 at 1024².
"""

from configs import default


def get_config():
    """Coarser patches; what embeddings computed elsewhere ask for."""
    config = default.get_config()
    config.data.patch_mpp = 2.0
    config.encoder.model.vit.width = 768
    config.encoder.model.vit.num_heads = 12
    config.autoencoder.train.num_steps = 0
    config.denoiser.train.num_steps = 97_600
    config.sample.conditioning = "interpolated"
    return config
