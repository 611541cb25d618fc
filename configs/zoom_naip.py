"""ZoomLDM on NAIP: one denoiser for four magnifications of aerial images, by published weights.

    import ssldiff_jax
    from configs import zoom_naip

    model = ssldiff_jax.Generator.load("naip/weights.ckpt", zoom_naip.get_config())
    image = model.at_level(2.0).generate(grid)

Levels are 1, 2, 4 and 8 times the metres of a pixel; the published code calls them 1x to 4x. `grid`
are embeddings (1024 numbers) by DINOv2 ViT-L/14 with registers of patches of 256 px at the first of
them, (rows, columns, 1024), as a .npy file for `config.generate.reference`; how they are used, what
is published and what was compared: configs/zoom_brca.py.
"""

from configs import default, naip, zoom_brca


def get_config(encoder_weights: str = ""):
    """Four levels; with a file of that DINOv2's weights it embeds images."""
    config = zoom_brca.as_published(default.get_config(), num_levels=4)
    naip.every_square_counts(config.data)
    config.data.holdout.case_regex = r"m_\d{7}"
    if encoder_weights:
        zoom_brca.with_encoder(config, "dinov2-reg-large", encoder_weights)
    return config
