"""Layers shared by the autoencoder and the denoiser, named as in latent diffusion."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Num

from ssldiff_jax.core import arrays

FeatureMap = Float[arrays.AnyArray, "B h w C"]


def group_norm(channels: int, *, epsilon: float, name: str, groups: int = 32) -> nn.GroupNorm:
    """Group norm of `groups` groups, or the most that divide narrower layers."""
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(num_groups=groups, epsilon=epsilon, name=name)


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
        conv_general_dilated=convolve,
        name=name,
    )


def convolve(
    x: FeatureMap,
    kernel: Float[arrays.AnyArray, "kh kw C_in C_out"],
    strides: tuple[int, int],
    padding: str | list[tuple[int, int]],
    **options,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, on CPU as one matrix product.

    XLA's CPU convolution uses one core well and two badly: shifted copies side by side and a
    matmul train 1.4 to 1.7 times as fast. Dilation and groups stay with XLA.
    """
    dilations = {*options["lhs_dilation"], *options["rhs_dilation"]}
    plain = options["feature_group_count"] == 1 and dilations == {1}
    if jax.default_backend() != "cpu" or not plain:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    kh, kw, _, features = kernel.shape
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], (kh, kw), strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height = (x.shape[1] - kh) // strides[0] + 1
    width = (x.shape[2] - kw) // strides[1] + 1
    shifted = [
        x[:, i : i + height * strides[0] : strides[0], j : j + width * strides[1] : strides[1]]
        for i in range(kh)
        for j in range(kw)
    ]
    columns = jnp.concatenate(shifted, axis=-1)
    return columns @ kernel.reshape(-1, features)


def upsample_nearest(x: FeatureMap) -> jax.Array:
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
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def to_image(image_uint8: arrays.AnyArray) -> jax.Array:
    """uint8 0…255 → float32 −1…1."""
    return jnp.asarray(image_uint8, jnp.float32) / 127.5 - 1.0


def to_uint8(image: arrays.AnyArray) -> jax.Array:
    """float −1…1 → uint8 0…255, rounded and clipped."""
    return jnp.clip(jnp.round((image + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
