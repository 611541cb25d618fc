"""The autoencoder that a config names, and the affine that makes its latents unit variance."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.autoencoder import conv, light, vq
from ssldiff_jax.core import arrays, layers

Moments = Float[arrays.AnyArray, "B h w C2"]

# Clipped as latent diffusion does (Rombach et al. 2022), so that exp stays finite in float32.
_LOGVAR_RANGE = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """`kl` and `vq` are built of the blocks of published weights, sized by `conv`; `light` is
    what two cores can train. Images have `bands`, 3 of RGB."""

    kind: Literal["kl", "vq", "light"]
    bands: int
    conv: conv.ConvConfig
    vq: vq.VQConfig
    light: light.LightConfig

    @property
    def chosen(self) -> conv.ConvConfig | light.LightConfig:
        """The sizes of the chosen kind."""
        return self.light if self.kind == "light" else self.conv

    @property
    def num_stored(self) -> int:
        """Channels of what is stored of latents: mean and log-variance, or, of a VQ autoencoder,
        which has no variance, the mean alone."""
        return self.chosen.latent_channels * (1 if self.kind == "vq" else 2)


class Reconstruction(flax.struct.PyTreeNode):
    """An image through its latents, what the latents cost, and the codes of a VQ one.

    Fields are arrays, or shapes of arrays where only shapes are needed.

    Attributes:
        image: `(B, H, W, bands)`.
        z: `(B, h, w, C)`, before quantisation.
        terms: `kl`, or `codebook`.
        index: `(B, h, w)` codes.
    """

    image: Any
    z: Any
    terms: dict[str, Any]
    index: Any = None


class Autoencoder(nn.Module):
    """`encode` gives moments (mean and log-variance, side by side), `decode` images.

    A VQ autoencoder has no variance: its log-variance is the least there is, its mean the latent
    before quantisation, and `decode` quantises first.
    """

    config: AutoencoderConfig

    def setup(self):
        sizes = self.config.chosen
        if self.config.kind == "light":
            self.encoder = light.Encoder(sizes)
            self.decoder = light.Decoder(sizes, self.config.bands)
        else:
            outputs = sizes.latent_channels * (1 if self.config.kind == "vq" else 2)
            self.encoder, self.decoder = (
                conv.Encoder(sizes, outputs),
                conv.Decoder(sizes, self.config.bands),
            )
        if self.config.kind == "vq":
            self.quantiser = vq.Quantiser(self.config.vq, sizes.latent_channels)

    def encode(self, image: arrays.BandImage) -> Moments:
        """Moments of the latents; image sides must be multiples of the downsample factor."""
        moments = self.encoder(image)
        if self.config.kind == "vq":
            # A deviation of exp(−15) = 3e-7: sampled, it is its mean.
            return jnp.concatenate([moments, jnp.full_like(moments, _LOGVAR_RANGE[0])], axis=-1)
        return moments

    def decode(self, z: arrays.Latents, dtype: Any = None) -> arrays.BandImage:
        """Images, not clipped. The decoder computes in `dtype`, by default that of z; codes are
        chosen before anything is rounded to it."""
        dtype = z.dtype if dtype is None else dtype
        if self.config.kind == "vq":
            z = self.quantiser(z).z
        return self.decoder(z.astype(dtype))

    def __call__(self, image: arrays.BandImage, noise: arrays.Latents) -> Reconstruction:
        """Through a latent sampled with `noise`, or through the nearest codes."""
        if self.config.kind == "vq":
            z = self.encoder(image)
            quantised = self.quantiser(z)
            # Codes are float32; the decoder goes on in what the encoder computes in.
            image_hat = self.decoder(quantised.z.astype(z.dtype))
            return Reconstruction(image_hat, z, {"codebook": quantised.loss}, quantised.index)
        moments = self.encode(image)
        z = sample_moments(moments, noise)
        return Reconstruction(self.decoder(z), z, {"kl": kl_divergence(moments)})


def sample_moments(moments: Moments, noise: arrays.Latents) -> arrays.Latents:
    """mean + std·noise, log-variance clipped as in latent diffusion."""
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return mean + jnp.exp(0.5 * jnp.clip(logvar, *_LOGVAR_RANGE)) * noise


def sample_stored(
    stored: Float[arrays.AnyArray, "B h w Cs"], noise: arrays.Latents
) -> arrays.Latents:
    """z of stored moments, or of means that were stored alone."""
    return jnp.asarray(stored) if stored.shape == noise.shape else sample_moments(stored, noise)


def kl_divergence(moments: Moments) -> Float[jax.Array, ""]:
    """KL from N(0, 1), summed over a latent, averaged over the batch and its pixels."""
    mean, logvar = jnp.split(moments, 2, axis=-1)
    logvar = jnp.clip(logvar, *_LOGVAR_RANGE)
    # ½(μ² + σ² − 1 − log σ²), a channel (Kingma and Welling 2014, appendix B).
    return 0.5 * jnp.mean(jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=-1))


@dataclasses.dataclass(frozen=True)
class LatentScaling:
    """latents = (z − latent_shift) · latent_scale, for each channel."""

    latent_scale: tuple[float, ...]
    latent_shift: tuple[float, ...]

    def apply(self, z: arrays.Latents) -> arrays.Latents:
        """To unit variance."""
        return (z - jnp.asarray(self.latent_shift)) * jnp.asarray(self.latent_scale)

    def invert(self, latents: arrays.Latents) -> arrays.Latents:
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

    def decode(self, params: Any, latents: arrays.Latents) -> arrays.BandImage:
        """Scaled latents → images, float32; params are passed so that a jit does not fold them. The
        decoder computes in their dtype."""
        model, z = Autoencoder(self.config), self.scaling.invert(latents)
        dtype = layers.dtype_of(params)
        image = model.apply({"params": params}, z, dtype, method=model.decode)
        return image.astype(jnp.float32)

    def encode(self, params: Any, image: arrays.BandImage) -> arrays.Latents:
        """Images → scaled latents, the mean of the posterior."""
        model = Autoencoder(self.config)
        moments = model.apply({"params": params}, image, method=model.encode)
        return self.scaling.apply(jnp.split(moments, 2, axis=-1)[0])
