"""An autoencoder that two cores can train: pixels are unshuffled once, all work is at 1/f."""

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import Float

from ssldiff_jax.core import arrays, layers


@dataclasses.dataclass(frozen=True)
class LightConfig:
    """Sizes; `num_blocks` residual blocks on either side. No norm: stain is in the mean."""

    latent_channels: int
    channels: int
    num_blocks: int
    downsample_factor: int


class Block(nn.Module):
    """Two convolutions, residual; starts as the identity."""

    features: int

    @nn.compact
    def __call__(self, x: layers.FeatureMap) -> layers.FeatureMap:
        h = layers.conv(self.features, name="conv_1")(nn.silu(x))
        h = layers.conv(self.features, name="conv_2", zero=True)(nn.silu(h))
        return layers.end_of_block(x + h)


class Encoder(nn.Module):
    """Images → moments `(B, h, w, 2·latent_channels)`."""

    config: LightConfig

    @nn.compact
    def __call__(self, image: arrays.BandImage) -> Float[jax.Array, "B h w _"]:
        c = self.config
        h = layers.pixel_unshuffle(image, c.downsample_factor)
        h = layers.conv(c.channels, name="conv_in")(h)
        for i in range(c.num_blocks):
            h = Block(c.channels, name=f"block_{i}")(h)
        return layers.conv(2 * c.latent_channels, name="conv_out")(nn.silu(h))


class Decoder(nn.Module):
    """Latents → images of `num_bands`."""

    config: LightConfig
    num_bands: int = 3

    @nn.compact
    def __call__(self, z: arrays.Latents) -> arrays.BandImage:
        c = self.config
        h = layers.conv(c.channels, name="conv_in")(z)
        for i in range(c.num_blocks):
            h = Block(c.channels, name=f"block_{i}")(h)
        h = layers.conv(self.num_bands * c.downsample_factor**2, name="conv_out")(nn.silu(h))
        return layers.pixel_shuffle(h, c.downsample_factor)
