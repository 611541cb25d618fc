"""The section `autoencoder`."""

from ml_collections import ConfigDict

from configs.defaults import training


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.model = ConfigDict()
    # kl or vq: the blocks of latent diffusion; light: a pixel-unshuffle stem, trains on two cores.
    c.model.kind = "vq"
    # Bands of images: 3, or as many as data.reading.multiband names.
    c.model.bands = 3
    # Of kl and vq.
    c.model.conv = ConfigDict()
    c.model.conv.latent_channels = 3
    c.model.conv.channels = 128
    c.model.conv.channel_mult = (1, 2, 4)
    c.model.conv.num_res_blocks = 2
    # 1x1: a convolution on either side of the latents; none: as in SD3.
    c.model.conv.latent_conv = "1x1"
    c.model.vq = ConfigDict()
    c.model.vq.num_codes = 8192
    # Weight of pulling latents to codes.
    c.model.vq.commitment = 0.25
    # Codes used less than this part of their even share, averaged over steps with this decay,
    # start again at a latent of the batch; 0 lets them lie.
    c.model.vq.usage_decay = 0.99
    c.model.vq.dead_below = 0.03
    c.model.light = ConfigDict()
    c.model.light.latent_channels = 4
    c.model.light.channels = 64
    c.model.light.num_blocks = 3
    c.model.light.downsample_factor = 4
    c.loss = ConfigDict()
    # Beside the mean absolute error of pixels, weight 1: gradients at three scales.
    c.loss.gradient_weight = 0.0
    # Amplitudes of all frequencies in squares of 16 px: keeps the finest detail as strong as it is.
    c.loss.spectrum_weight = 0.0
    # Features: the encoder's patch tokens, or lpips with "vgg16 file,linear layers file".
    c.loss.perceptual = "encoder"
    c.loss.perceptual_weight = 1.0
    c.loss.lpips_weights = ""
    # KL from a unit Gaussian (kl, light); codes and latents initialised together (vq).
    c.loss.kl_weight = 1e-6
    c.loss.codebook_weight = 1.0
    c.loss.adversarial = ConfigDict()
    # Patch discriminator; 0 trains without one. It counts from start_step on.
    c.loss.adversarial.weight = 0.75
    c.loss.adversarial.start_step = 50_000
    c.loss.adversarial.channels = 64
    c.loss.adversarial.num_layers = 3
    # Published weights to start from, a file or an hf:// address: latent diffusion's names, or
    # diffusers'.
    c.weights = ""
    # measured: latents are brought to unit variance; none: they stay as the encoder gives them,
    # which is what published UNets were trained on; published: as config.json beside `weights`
    # says, or, without one, as SD3's of 16 channels.
    c.latent_scaling = "measured"
    c.train = training.get_config(steps=200_000, batch_size=64, learning_rate=1e-4)
    c.train.optimizer.ema_decay = 0.999
    return c
