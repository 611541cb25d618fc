"""Layers shared by the autoencoder and the denoiser, named as in latent diffusion."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Num, Shaped, UInt8

from ssldiff_jax.core import arrays, convolution

FeatureMap = convolution.FeatureMap

BLOCK = "block"
"""The name of what a block of a network gives on, for choosing what a gradient keeps."""

_EXACT = "codebook"  # compared to the last digit: never rounded


def cast(tree: Any, dtype: str) -> Any:
    """Floating leaves in `dtype`, but for codebooks."""

    def leaf(path: tuple, x: arrays.AnyArray) -> arrays.AnyArray:
        exact = is_exact(jax.tree_util.keystr(path)) or not jnp.issubdtype(x.dtype, jnp.floating)
        return x if exact or x.dtype == dtype else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def is_exact(name: str) -> bool:
    """Whether parameters of this name keep their dtype whatever the others are computed in."""
    return _EXACT in name


def like(params: Any, x: arrays.AnyArray) -> arrays.AnyArray:
    """Inputs in the dtype of a model's parameters, which it then computes in."""
    return x.astype(dtype_of(params))


def dtype_of(params: Any) -> jnp.dtype:
    """What a model of these parameters computes in, bfloat16 or float32."""
    # Any, not all: a codebook stays float32 in a model that was cast to bfloat16.
    half = jnp.dtype(jnp.bfloat16)
    is_cast = any(leaf.dtype == half for leaf in jax.tree.leaves(params))
    return half if is_cast else jnp.dtype(jnp.float32)


def end_of_block(x: jax.Array) -> jax.Array:
    """x, marked as what a block gives on."""
    return checkpoint_name(x, BLOCK)


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018). Sums are taken over pixels first and over the channels of a
    group after, in the order of memory: flax.linen's, which reduces all at once, takes up to five
    times as long on CPU."""

    num_groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x: FeatureMap) -> FeatureMap:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # Sums over whole maps: bfloat16, with 8 bits, would stop growing after 256 pixels.
        values = x.astype(jnp.float32)
        mean, variance = self._statistics(values)
        # (x − mean)·rsqrt(variance)·scale + bias as one product and sum a pixel.
        gain = scale * jax.lax.rsqrt(variance + self.epsilon)
        shift = bias - mean * gain
        return (values * gain[:, None, None] + shift[:, None, None]).astype(x.dtype)

    def _statistics(self, values: FeatureMap) -> tuple[jax.Array, jax.Array]:
        """For every channel (B, C) the mean and the variance of its group.

        E[x²] − mean² loses (mean / deviation)² roundings: a tenth of the variance at a mean of 1000
        deviations, which a group of one channel has where an image is flat. So channels are centred
        on their own means, and these on the group's (law of total variance).
        """
        of_channels = jnp.mean(values, axis=(1, 2))
        within = jnp.mean((values - of_channels[:, None, None]) ** 2, axis=(1, 2))
        mean = self._of_groups(of_channels)
        return mean, self._of_groups(within + (of_channels - mean) ** 2)

    def _of_groups(self, means: Float[jax.Array, "B C"]) -> Float[jax.Array, "B C"]:
        """For every channel the mean over its group."""
        grouped = means.reshape(len(means), self.num_groups, -1)
        return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(means.shape)


def group_norm(channels: int, *, epsilon: float, name: str, groups: int = 32) -> GroupNorm:
    """Group norm of `groups` groups, or the most that divide narrower layers."""
    while channels % groups:
        groups -= 1
    return GroupNorm(groups, epsilon, name=name)


def conv(
    features: int,
    *,
    name: str,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    zero: bool = False,
) -> nn.Conv:
    """A convolution, by default padded to keep the size; `zero` starts it at nothing."""
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Conv(
        features,
        (kernel, kernel),
        stride,
        padding=kernel // 2 if padding is None else padding,
        kernel_init=init,
        # flax's parameters, computed in the form that each backend runs best.
        conv_general_dilated=convolution.convolve,
        name=name,
    )


def upsample_nearest(x: FeatureMap) -> Float[jax.Array, "B 2*h 2*w C"]:
    """Every pixel becomes a 2 × 2 block."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def pixel_unshuffle(x: FeatureMap, factor: int) -> jax.Array:
    """Blocks of `factor`² pixels become channels: (B, H, W, C) → (B, H/f, W/f, f²·C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // factor, w // factor, factor**2 * c)


def pixel_shuffle(x: FeatureMap, factor: int) -> jax.Array:
    """The inverse of `pixel_unshuffle`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * factor, w * factor, c // factor**2)


def timestep_embedding(t: Num[arrays.AnyArray, "B"], dim: int) -> Float[arrays.AnyArray, "B D"]:
    """[cos, sin] of t at frequencies 10⁴^(−i/half), as in Ho et al. 2020 and latent diffusion."""
    half = dim // 2
    frequencies = jnp.exp(-jnp.log(1e4) * jnp.arange(half) / half)
    # bfloat16 holds whole numbers up to 256 only.
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def to_image(pixels: Shaped[arrays.AnyArray, "*S"]) -> Float[jax.Array, "*S"]:
    """0…255 of 8 bits, or 0…65535 of 16 → float32 −1…1."""
    return jnp.asarray(pixels, jnp.float32) / (_top(pixels.dtype) / 2) - 1.0


def to_uint8(image: Float[arrays.AnyArray, "*S"]) -> UInt8[jax.Array, "*S"]:
    """float −1…1 → uint8 0…255, rounded and clipped."""
    return to_pixels(image, "uint8")


def to_pixels(image: Float[arrays.AnyArray, "*S"], dtype: Any) -> Shaped[jax.Array, "*S"]:
    """float −1…1 → all values of uint8 or uint16, rounded and clipped."""
    top = _top(dtype)
    return jnp.clip(jnp.round((image + 1.0) * (top / 2)), 0, top).astype(dtype)


def _top(dtype: Any) -> int:
    """The largest value, of uint8 and uint16; of other numbers, which stand for bytes, 255."""
    dtype = np.dtype(dtype)
    return 65535 if dtype == np.uint16 else 255
