"""ZoomLDM on TCGA-BRCA: one denoiser for eight magnifications, 20× to 0.16×, by published weights.

    import ssldiff_jax
    from configs import zoom_brca

    model = ssldiff_jax.Generator.load("brca/weights.ckpt", zoom_brca.get_config())
    image = model.at_level(4.0).generate(grid)  # 5×

`grid` are embeddings by UNI (1024 numbers) of patches of 256 px at 20×, (rows, columns, 1024). A
slide has the same grid at every level: windows of 256 px have 1, 2 × 2, 4 × 4 or 8 × 8 of them, or
8 × 8 means of more. 32 × 40 cells are 8192 × 10240 px at level 1 and 1024 × 1280 px at level 8.
With `get_config("/weights/uni")`, the file of UNI's weights, images at 20× and slides can be
references too.

Published (CVPR 2025): UNet and VQ-f4 of configs/tcga.py, a conditioner of 38.7 M parameters, 12.5 M
patches at 20× to 2 489 at 0.16×, each level seen as often as the others; weights on request of
their authors. Guidance of 2 as they sample patches; the windows and the solver are this house's.
Numbers, names and shapes of the conditioner are compared with recordings of the published code; no
image was made with the published weights here.

A model of your own learns levels by `config.data.levels` in any config; with
`config.denoiser.conditioner.of=own` this conditioner learns them from tokens of patches.
"""

from configs import default


def get_config(encoder_weights: str = ""):
    """Eight levels; with a file of UNI's weights it embeds images."""
    config = as_published(default.get_config(), num_levels=8)
    if encoder_weights:
        with_encoder(config, "uni", encoder_weights)
    return config


def as_published(config, *, num_levels):
    """Levels that double, and the conditioner of ZoomLDM."""
    config.data.levels = tuple(2.0**i for i in range(num_levels))
    config.data.records.scales = config.data.levels[1:]
    config.denoiser.conditioner.name = "transformer"
    config.denoiser.conditioner.of = "finest"
    config.denoiser.train.num_steps = 0
    config.autoencoder.latent_scaling = "none"
    config.sample.conditioning = "interpolated"
    config.sample.guidance.scale = 2.0
    config.sample.guidance.interval = (0.0, 1.0)
    return config


def with_encoder(config, name, weights):
    """A published encoder, used as it is."""
    config.encoder.name, config.encoder.weights = name, weights
    config.encoder.train.num_steps = 0
