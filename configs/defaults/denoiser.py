"""The section `denoiser`."""

from ml_collections import ConfigDict

from configs.defaults import diffusion, training


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.unet = ConfigDict()
    c.unet.latent_channels = 3
    c.unet.channels = 192
    c.unet.channel_mult = (1, 2, 3, 5)
    c.unet.num_res_blocks = 2
    # Levels with a transformer, 0 the finest.
    c.unet.attention_levels = (1, 2, 3)
    c.unet.num_heads = 1
    c.unet.context_dim = 512
    # cross_attention as published, or scale_shift in every residual block.
    c.unet.conditioning = "cross_attention"
    # one: embeddings have length 1 as published; root_dim: length √D.
    c.embedding_length = "one"
    # Dimension of an embedding of the region around a patch, a second token; 0 has none.
    c.region_dim = 0
    # Published weights to start from, a file or an hf:// address: UNet and conditioner in latent
    # diffusion's names.
    c.weights = ""
    c.schedule = diffusion.schedule("scaled_linear")
    c.loss = ConfigDict()
    # eps, x0 or v; velocity with schedule.name=linear.
    c.loss.prediction = "eps"
    # How often the null embedding takes the embedding's place.
    c.loss.cond_drop_rate = 0.1
    # Caps the weight of low-noise timesteps; 0 weighs all alike.
    c.loss.min_snr_gamma = 0.0
    c.train = training.get_config(steps=150_000, batch_size=600, learning_rate=1e-4)
    return c


def distill() -> ConfigDict:
    """The section `distill`: a student of the denoiser, for config.sample.student."""
    c = ConfigDict()
    # Strides that a student can make an image in, a power of 2 (and 2, 1 with 4); 0: no student.
    c.visits = 0
    # Steps of the guided denoiser that each of these strides replaces.
    c.steps = 3
    # Least and greatest scale of guidance, an input of the student.
    c.scales = (1.0, 4.0)
    c.train = training.get_config(steps=20_000, batch_size=600, learning_rate=5e-5)
    return c
