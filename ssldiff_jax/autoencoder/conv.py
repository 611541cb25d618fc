"""The convolutional autoencoder of latent diffusion (Rombach et al. 2022), KL or VQ."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention, layers


@dataclasses.dataclass(frozen=True)
class ConvConfig:
    """Sizes; the published f4 first stage has 3, 128, (1, 2, 4) and 2.

    `latent_conv` is the 1×1 convolution on either side of the latents, which some models lack.
    """

    latent_channels: int
    channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    latent_conv: Literal["1x1", "none"]

    @property
    def downsample_factor(self) -> int:
        """Pixels per latent."""
        return 2 ** (len(self.channel_mult) - 1)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, residual."""

    features: int

    @nn.compact
    def __call__(self, x: layers.FeatureMap) -> Float[jax.Array, "B h w _"]:
        # 1e-6 as in the published autoencoders, whose weights fit; torch's default is 1e-5.
        h = nn.silu(layers.group_norm(x.shape[-1], epsilon=1e-6, name="norm1")(x))
        h = layers.conv(self.features, name="conv1")(h)
        h = nn.silu(layers.group_norm(self.features, epsilon=1e-6, name="norm2")(h))
        h = layers.conv(self.features, name="conv2")(h)
        if x.shape[-1] != self.features:
            # A shortcut only where the width changes, as published.
            x = layers.conv(self.features, kernel=1, name="shortcut")(x)
        return layers.end_of_block(x + h)


class AttentionBlock(nn.Module):
    """One head over all pixels."""

    @nn.compact
    def __call__(self, x: layers.FeatureMap) -> layers.FeatureMap:
        b, h, w, c = x.shape
        y = layers.group_norm(c, epsilon=1e-6, name="norm")(x).reshape(b, h * w, c)
        # The published 1 × 1 convolutions, as products over pixels.
        q, k, v = (nn.Dense(c, name=name)(y) for name in ("q", "k", "v"))
        y = nn.Dense(c, name="proj_out")(attention.attend(q, k, v, num_heads=1))
        return x + y.reshape(b, h, w, c)


class Middle(nn.Module):
    """The blocks at the coarsest level."""

    @nn.compact
    def __call__(self, x: layers.FeatureMap) -> layers.FeatureMap:
        x = ResBlock(x.shape[-1], name="block_1")(x)
        x = AttentionBlock(name="attention")(x)
        return ResBlock(x.shape[-1], name="block_2")(x)


class Encoder(nn.Module):
    """Images → `(B, h, w, num_outputs)`: moments of a KL autoencoder, latents of a VQ one."""

    config: ConvConfig
    num_outputs: int

    @nn.compact
    def __call__(self, image: arrays.BandImage) -> Float[jax.Array, "B h w _"]:
        c = self.config
        h = layers.conv(c.channels, name="conv_in")(image)
        for level, mult in enumerate(c.channel_mult):
            for block in range(c.num_res_blocks):
                h = ResBlock(c.channels * mult, name=f"down_{level}_{block}")(h)
            if level < len(c.channel_mult) - 1:
                # Padded right and bottom only, as the published weights were trained.
                h = jnp.pad(h, ((0, 0), (0, 1), (0, 1), (0, 0)))
                h = layers.conv(h.shape[-1], stride=2, padding=0, name=f"downsample_{level}")(h)
        h = Middle(name="middle")(h)
        h = nn.silu(layers.group_norm(h.shape[-1], epsilon=1e-6, name="norm_out")(h))
        h = layers.conv(self.num_outputs, name="conv_out")(h)
        if c.latent_conv == "none":
            return h
        return layers.conv(self.num_outputs, kernel=1, name="quant")(h)


class Decoder(nn.Module):
    """Latents → images of `num_bands`."""

    config: ConvConfig
    num_bands: int = 3

    @nn.compact
    def __call__(self, z: arrays.Latents) -> arrays.BandImage:
        c, h = self.config, z
        if c.latent_conv == "1x1":
            h = layers.conv(c.latent_channels, kernel=1, name="post_quant")(h)
        h = layers.conv(c.channels * c.channel_mult[-1], name="conv_in")(h)
        h = Middle(name="middle")(h)
        for level, mult in reversed(list(enumerate(c.channel_mult))):
            # One block more than on the way down, as published.
            for block in range(c.num_res_blocks + 1):
                h = ResBlock(c.channels * mult, name=f"up_{level}_{block}")(h)
            if level > 0:
                h = layers.upsample_nearest(h)
                h = layers.conv(h.shape[-1], name=f"upsample_{level}")(h)
        h = nn.silu(layers.group_norm(h.shape[-1], epsilon=1e-6, name="norm_out")(h))
        return layers.conv(self.num_bands, name="conv_out")(h)
