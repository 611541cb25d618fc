"""Convolution in the form each backend runs best; on CPU the form depends on whether gradients are
needed.

A kernel of one pixel at stride 1 is a matrix product of pixels and channels everywhere: a GPU's
compiler tries fewer ways for these than for convolutions.

On CPU, to sample, XLA's is used, or where maps are large Winograd's, which needs 2.25 times fewer
products. To train, shifted copies and one matrix product: as fast as XLA's or faster, and half of
Winograd's time to compile. One filter for each channel is a sum of shifted maps: XLA's takes 20
times as long.
"""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, platform

FeatureMap: TypeAlias = Float[arrays.AnyArray, "B h w C"]
Kernel: TypeAlias = Float[arrays.AnyArray, "kh kw C_in C_out"]
Padding: TypeAlias = tuple[tuple[int, int], ...]

# Below so many pixels, or so small kernels, transforming them costs more than it saves.
_WINOGRAD_PIXELS, _WINOGRAD_PRODUCTS = 256, 2048


def convolve(
    x: FeatureMap,
    kernel: Kernel,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of NHWC by HWIO; dilation and groups of several channels stay
    with XLA."""
    dilations, groups = (
        {*options["lhs_dilation"], *options["rhs_dilation"]},
        options["feature_group_count"],
    )
    is_depthwise = groups == x.shape[-1] == kernel.shape[-1] and platform.target() == "cpu"
    if dilations != {1} or (groups != 1 and not is_depthwise):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    strides, padding = tuple(strides), tuple(map(tuple, padding))
    if groups != 1:
        return _depthwise(x, kernel, strides, padding)
    if (kernel.shape[:2], strides, padding) == ((1, 1), (1, 1), ((0, 0), (0, 0))):
        return jnp.matmul(x, kernel[0, 0], precision=options.get("precision"))
    if platform.target() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return _on_cpu(x, kernel, strides, padding)


def _depthwise(
    x: FeatureMap, kernel: Kernel, strides: tuple[int, ...], padding: Padding
) -> jax.Array:
    """One filter for each channel."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel.shape, strides, strict=False)]
    # Ends of every stride: the last pixel that is looked at, and no further.
    ends = [(n - 1) * s + 1 for n, s in zip(size, strides, strict=True)]
    return sum(
        x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]] * kernel[i, j, 0]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _on_cpu(x: FeatureMap, kernel: Kernel, strides: tuple[int, ...], padding: Padding) -> jax.Array:
    """The forward pass, where no gradient is needed."""
    # 1 × 1, or patches side by side: the copies are x itself, rearranged.
    if kernel.shape[:2] == strides:
        return _as_product(x, kernel, strides, padding)
    # From here on copies would overlap, and take kh·kw times the memory of x.
    square = kernel.shape[:2] == (3, 3) and strides == (1, 1) and padding == ((1, 1), (1, 1))
    large = np.prod(x.shape[:3]) >= _WINOGRAD_PIXELS and np.prod(kernel.shape[2:]) >= (
        _WINOGRAD_PRODUCTS
    )
    # The coefficients of Winograd are float32 and would promote a bfloat16 map.
    if square and large and x.dtype == jnp.float32:
        return winograd(x, kernel)
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def _forward(x: FeatureMap, kernel: Kernel, strides: tuple[int, ...], padding: Padding):
    # The pull-back is a tree of what it needs, so it serves as the residuals of custom_vjp.
    return jax.vjp(lambda x, kernel: _as_product(x, kernel, strides, padding), x, kernel)


def _backward(strides: tuple[int, ...], padding: Padding, pull, gradient: jax.Array):
    return pull(gradient)


_on_cpu.defvjp(_forward, _backward)


def _as_product(
    x: FeatureMap, kernel: Kernel, strides: tuple[int, ...], padding: Padding
) -> jax.Array:
    """Shifted copies side by side, and one matrix product."""
    kh, kw, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height = (x.shape[1] - kh) // strides[0] + 1
    width = (x.shape[2] - kw) // strides[1] + 1
    shifted = [
        x[:, i : i + height * strides[0] : strides[0], j : j + width * strides[1] : strides[1]]
        for i in range(kh)
        for j in range(kw)
    ]
    # Rows, columns, then channels: the order in which HWIO is flattened.
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, features)


# Lavin and Gray 2016, F(2×2, 3×3): output = Aᵀ[(G·kernel·Gᵀ) ⊙ (Bᵀ·tile·B)]A for tiles of 4 × 4
# pixels, 2 apart; the products ⊙ are matrix products over channels.
_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)


def winograd(x: FeatureMap, kernel: Kernel) -> Float[jax.Array, "B h w C_out"]:
    """A 3 × 3 convolution that keeps the size, of any height and width."""
    b, height, width, channels = x.shape
    rows, cols = -(-height // 2), -(-width // 2)
    # One pixel around, and one more at the end of an odd side, which tiles of 2 × 2 overshoot.
    x = jnp.pad(x, ((0, 0), (1, 1 + 2 * rows - height), (1, 1 + 2 * cols - width), (0, 0)))

    down = [x[:, i : i + 2 * rows - 1 : 2] for i in range(4)]
    tiles = [_combine(_B, _columns(strip, cols)) for strip in _combine(_B, down)]
    # 4 × 4 of (B, rows, cols, C_in), and 4 × 4 of (C_in, C_out).
    kernels = [_combine(_G, list(line)) for line in _combine(_G, list(kernel))]

    # 16 products for 4 pixels, where the plain sum takes 4 · 9 = 36: 2.25 times as many.
    products = [
        [tile.reshape(-1, channels) @ matrix for tile, matrix in zip(*pair, strict=True)]
        for pair in zip(tiles, kernels, strict=True)
    ]

    lines = _combine(_A, [jnp.stack(_combine(_A, line)) for line in products])
    # (2, 2, B·rows·cols, C): rows and columns of an output tile first.
    output = jnp.stack(lines).reshape(2, 2, b, rows, cols, -1)
    output = output.transpose(2, 3, 0, 4, 1, 5).reshape(b, 2 * rows, 2 * cols, -1)
    return output[:, :height, :width]


def _columns(strip: Float[arrays.AnyArray, "B rows W C"], cols: int) -> list[arrays.AnyArray]:
    """Each of the four columns of all tiles, which are 2 apart: four of (B, rows, cols, C)."""
    return [strip[:, :, j : j + 2 * cols - 1 : 2] for j in range(4)]


def _combine(matrix: np.ndarray, parts: list[arrays.AnyArray]) -> list[arrays.AnyArray]:
    """Linear combinations of arrays, a row of the matrix each; zeros cost nothing."""
    return [
        functools.reduce(jnp.add, [c * part for c, part in zip(row, parts, strict=True) if c])
        for row in matrix
    ]
