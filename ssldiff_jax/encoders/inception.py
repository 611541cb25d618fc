"""The InceptionV3 of the Fréchet inception distance (Szegedy et al. 2016, Heusel et al. 2017).

The graph is that of the TensorFlow file inception-2015-12-05, as pytorch-fid 0.3.0 computes it. It
differs from the usual one: averages leave the padding out, and the last block pools by maxima.
Blocks are named as in its file.
"""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays
from ssldiff_jax.encoders.conv_norm import ConvNorm, FeatureMap, Size

DIM = 2048  # of the pooled features
INPUT_PX = 299

_WIDTHS = (128, 160, 160, 192)  # of the blocks 6b to 6e


class BlockA(nn.Module):
    """Receptive fields of 1, 5 and 5, and a mean."""

    pool_features: int

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[jax.Array, "B h w _"]:
        # Two of 3 × 3 see what one of 5 × 5 does (section 3.1 of the paper).
        triple = _chain(x, "branch3x3dbl_1", 64)
        triple = _chain(triple, "branch3x3dbl_2", 96, 3)
        return _joined(
            _chain(x, "branch1x1", 64),
            _chain(_chain(x, "branch5x5_1", 48), "branch5x5_2", 64, 5),
            _chain(triple, "branch3x3dbl_3", 96, 3),
            _chain(_mean(x), "branch_pool", self.pool_features),
        )


class BlockB(nn.Module):
    """Half the resolution: strides of 3 × 3 and a maximum."""

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[jax.Array, "B _ _ _"]:
        double = _chain(_chain(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
        return _joined(_half(x, "branch3x3", 384), _half(double, "branch3x3dbl_3", 96), _max(x))


class BlockC(nn.Module):
    """Receptive fields of 1, 7 and 13 by rows and columns in turn, and a mean."""

    width: int

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[jax.Array, "B h w _"]:
        # 7 × 7 as a row and a column (section 3.2).
        c, row, column = self.width, (1, 7), (7, 1)
        single = _chain(_chain(x, "branch7x7_1", c), "branch7x7_2", c, row)
        double = _chain(x, "branch7x7dbl_1", c)
        for number, kernel in enumerate((column, row, column), start=2):
            double = _chain(double, f"branch7x7dbl_{number}", c, kernel)
        return _joined(
            _chain(x, "branch1x1", 192),
            _chain(single, "branch7x7_3", 192, column),
            _chain(double, "branch7x7dbl_5", 192, row),
            _chain(_mean(x), "branch_pool", 192),
        )


class BlockD(nn.Module):
    """Half the resolution, the second branch with a field of 7 before."""

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[jax.Array, "B _ _ _"]:
        wide = _chain(x, "branch7x7x3_1", 192)
        wide = _chain(_chain(wide, "branch7x7x3_2", 192, (1, 7)), "branch7x7x3_3", 192, (7, 1))
        single = _half(_chain(x, "branch3x3_1", 192), "branch3x3_2", 320)
        return _joined(single, _half(wide, "branch7x7x3_4", 192), _max(x))


class BlockE(nn.Module):
    """Rows and columns side by side; the last branch pools by means or by maxima."""

    pool: Literal["mean", "max"]

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[jax.Array, "B h w _"]:
        def split(h: FeatureMap, name: str) -> jax.Array:
            return _joined(_chain(h, f"{name}a", 384, (1, 3)), _chain(h, f"{name}b", 384, (3, 1)))

        double = _chain(_chain(x, "branch3x3dbl_1", 448), "branch3x3dbl_2", 384, 3)
        pooled = _mean(x) if self.pool == "mean" else _max(x, stride=1)
        return _joined(
            _chain(x, "branch1x1", 320),
            split(_chain(x, "branch3x3_1", 384), "branch3x3_2"),
            split(double, "branch3x3dbl_3"),
            _chain(pooled, "branch_pool", 192),
        )


class Inception(nn.Module):
    """Images in [−1, 1], 299 px → features (B, 2048) after the last mean: pytorch-fid's default."""

    def setup(self):
        self.stem = (
            ConvNorm(32, 3, 2, "VALID", name="Conv2d_1a_3x3"),
            ConvNorm(32, 3, 1, "VALID", name="Conv2d_2a_3x3"),
            ConvNorm(64, 3, name="Conv2d_2b_3x3"),
        )
        self.second = (
            ConvNorm(80, name="Conv2d_3b_1x1"),
            ConvNorm(192, 3, 1, "VALID", name="Conv2d_4a_3x3"),
        )
        self.middle = (
            *(BlockA(n, name=f"Mixed_5{i}") for i, n in zip("bcd", (32, 64, 64), strict=True)),
            BlockB(name="Mixed_6a"),
            *(BlockC(n, name=f"Mixed_6{i}") for i, n in zip("bcde", _WIDTHS, strict=True)),
        )
        self.last = (
            BlockD(name="Mixed_7a"),
            BlockE("mean", name="Mixed_7b"),
            BlockE("max", name="Mixed_7c"),
        )

    def __call__(self, image: arrays.Image) -> arrays.Embedding:
        x = _max(_through(self.stem, image))
        x = _max(_through(self.second, x))
        return _through((*self.middle, *self.last), x).mean(axis=(1, 2))


def prepare(
    image_uint8: UInt8[arrays.AnyArray, "B H W 3"],
) -> Float[jax.Array, "B 299 299 3"]:
    """299 px in [−1, 1]: bilinear, half-pixel centres, not antialiased, as pytorch-fid resizes."""
    x = jnp.asarray(image_uint8, jnp.float32) / 255
    size = (len(x), INPUT_PX, INPUT_PX, 3)
    if x.shape != size:
        x = jax.image.resize(x, size, "linear", antialias=False, precision="highest")
    return 2 * x - 1


def features(
    params: Any, image_uint8: UInt8[arrays.AnyArray, "B H W 3"]
) -> Float[arrays.AnyArray, "B 2048"]:
    """Features of images of any one size."""
    return Inception().apply({"params": params}, prepare(image_uint8))


def _chain(x: FeatureMap, name: str, features: int, kernel: Size = 1) -> jax.Array:
    return ConvNorm(features, kernel, name=name)(x)


def _half(x: FeatureMap, name: str, features: int) -> jax.Array:
    return ConvNorm(features, 3, 2, "VALID", name=name)(x)


def _through(parts: Sequence[nn.Module], x: FeatureMap) -> jax.Array:
    for part in parts:
        x = part(x)
    return x


def _joined(*branches: Float[arrays.AnyArray, "B h w _"]) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


def _mean(x: FeatureMap) -> jax.Array:
    """Over 3 × 3, of what lies within."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _max(x: FeatureMap, stride: int = 2) -> jax.Array:
    return nn.max_pool(x, (3, 3), (stride, stride), "VALID" if stride == 2 else "SAME")
