"""The autoencoder that a config names, and the affine that makes its latents unit variance."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.autoencoder import kl, light
from ssldiff_jax.core import arrays

Moments = Float[arrays.AnyArray, "B h w C2"]


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """`kl` are the blocks of published weights, `light` is what two cores can train."""

    kind: Literal["kl", "light"]
    kl: kl.KLConfig
    light: light.LightConfig

    @property
    def chosen(self) -> kl.KLConfig | light.LightConfig:
        """The sizes of the chosen kind."""
        return getattr(self, self.kind)


class Autoencoder(nn.Module):
    """`encode` gives moments (mean and log-variance, side by side), `decode` images."""

    config: AutoencoderConfig

    def setup(self):
        room = {"kl": kl, "light": light}[self.config.kind]
        self.encoder = room.Encoder(self.config.chosen)
        self.decoder = room.Decoder(self.config.chosen)

    def encode(self, image: arrays.Image) -> Moments:
        """Moments of the latents; image sides must be multiples of the downsample factor."""
        return self.encoder(image)

    def decode(self, z: arrays.Latents) -> arrays.Image:
        """Images, not clipped."""
        return self.decoder(z)

    def __call__(self, image: arrays.Image, noise: arrays.Latents) -> tuple[jax.Array, jax.Array]:
        """Reconstruction through a latent drawn with `noise`, and the moments."""
        moments = self.encode(image)
        return self.decode(sample_moments(moments, noise)), moments


def sample_moments(moments: Moments, noise: arrays.Latents) -> jax.Array:
    """mean + std·noise, log-variance clipped as in latent diffusion."""
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return mean + jnp.exp(0.5 * jnp.clip(logvar, -30.0, 20.0)) * noise


def kl_divergence(moments: Moments) -> Float[jax.Array, ""]:
    """KL from N(0, 1), summed over a latent, averaged over the batch and its pixels."""
    mean, logvar = jnp.split(moments, 2, axis=-1)
    logvar = jnp.clip(logvar, -30.0, 20.0)
    return 0.5 * jnp.mean(jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=-1))


@dataclasses.dataclass(frozen=True)
class LatentScaling:
    """latents = (z − latent_shift) · latent_scale, for each channel."""

    latent_scale: tuple[float, ...]
    latent_shift: tuple[float, ...]

    def apply(self, z: arrays.Latents) -> jax.Array:
        """To unit variance."""
        return (z - jnp.asarray(self.latent_shift)) * jnp.asarray(self.latent_scale)

    def invert(self, latents: arrays.Latents) -> jax.Array:
        """Back to what the decoder reads."""
        return latents / jnp.asarray(self.latent_scale) + jnp.asarray(self.latent_shift)


@dataclasses.dataclass(frozen=True)
class TrainedAutoencoder:
    """An autoencoder with its weights and scaling."""

    config: AutoencoderConfig
    params: Any
    scaling: LatentScaling

    @property
    def downsample_factor(self) -> int:
        """Pixels per latent."""
        return self.config.chosen.downsample_factor

    def decode(self, params: Any, latents: arrays.Latents) -> jax.Array:
        """Scaled latents → images; params are passed so that a jit does not fold them."""
        model = Autoencoder(self.config)
        return model.apply({"params": params}, self.scaling.invert(latents), method=model.decode)

    def encode(self, params: Any, image: arrays.Image) -> jax.Array:
        """Images → scaled latents, the mean of the posterior."""
        model = Autoencoder(self.config)
        moments = model.apply({"params": params}, image, method=model.encode)
        return self.scaling.apply(jnp.split(moments, 2, axis=-1)[0])
