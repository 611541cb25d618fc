"""PixCell (PixArt-XL/2 on SD3's latents, led by UNI2-h) as it was published: images, no training.

    python -m ssldiff_jax.main --config=configs/pixcell.py:1024 --workdir=/data/run \
        --config.denoiser.weights=/weights/PixCell-1024 --config.autoencoder.weights=/weights/sd3 \
        --config.stages=generate --config.generate.reference=/data/embeddings/slide.h5

`pixcell.py:256` has windows of 256 px and one embedding each, `:1024` windows of 1024 px and the
4 × 4 embeddings of their squares. The reference is a file of UNI2-h embeddings, a vector for each
square of 256 px at 0.5 µm/px, or an image, with `--config.encoder.weights=/weights/uni2-h`. From
Python: `Generator.load("/weights/PixCell-1024", pixcell.get_config("1024"))`.

Windows begin where squares do, so that no embedding is interpolated. 10 steps, of which the noisier
6 are guided: 475 network calls for 4096² px, where PixCell's own tool makes 1960. Scales of
guidance are the best of PixCell's own sweeps, which guided all steps. Hardware and hours: not
measured. Expected of PixCell's own code: patch FID 9.65 (256 px), 7.92 (1024 px).
"""

from configs import default


def get_config(model: str = "256"):
    """Windows of 256 or 1024 px: `256` or `1024`."""
    if model not in ("256", "1024"):
        raise ValueError(f"configs/pixcell.py takes 256 or 1024, got {model!r}")
    config = default.get_config()
    px, is_large = int(model), model == "1024"
    config.data.crops.patch_px = px
    config.data.crops.context_px = 0
    config.data.records.record_px = config.data.records.stride_px = 1024
    for section in (config.encoder, config.judge):
        section.model.vit.image_px = px
    config.encoder.name = "uni2-h"
    config.encoder.train.num_steps = 0
    _autoencoder(config.autoencoder)
    _denoiser(config.denoiser, is_large)
    config.sample.conditioning = "interpolated"
    config.sample.guidance.scale = 1.2 if is_large else 2.0
    config.sample.solver.num_solver_steps = 10
    # Half a window: the grid stands anywhere on the lattice of squares.
    config.sample.windows.max_offset = 64 if is_large else 16
    if is_large:
        config.embeddings.tokens_per_side = 4
        config.embeddings.tokens_of = "squares"
    return config


def _autoencoder(c):
    """SD3's."""
    c.model.kind = "kl"
    c.model.conv.latent_channels = 16
    c.model.conv.channel_mult = (1, 2, 4, 4)
    c.model.conv.latent_conv = "none"
    c.latent_scaling = "published"
    c.train.num_steps = 0


def _denoiser(c, is_large):
    """PixArt-XL/2 on 16 channels."""
    c.network = "dit"
    c.dit.latent_channels = 16
    c.dit.shape.width = 1152
    c.dit.shape.depth = 28
    c.dit.shape.num_heads = 16
    # One for each patch of a window; of the larger, half as far apart.
    c.dit.positions.base = 64 if is_large else 16
    c.dit.positions.scale = 2.0 if is_large else 1.0
    c.embedding_length = "own"
    c.schedule.name = "linear_betas"
    c.schedule.beta_start = 1e-4
    c.schedule.beta_end = 0.02
    c.train.num_steps = 0
