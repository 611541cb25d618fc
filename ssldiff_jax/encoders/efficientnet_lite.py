"""EfficientNet-Lite0 (Tan and Le 2019; without squeeze and excitation, and with ReLU6): features of
photographs, learnt from the classes of ImageNet."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays, convolution
from ssldiff_jax.encoders import conv_norm

DIM = 1280  # of the pooled features
INPUT_PX = 224

# (blocks, kernel, stride of the first, expansion, width)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Of ImageNet's pixels in 0…1, by colour.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Inverted bottleneck (Sandler et al. 2018): wider, one filter a channel, narrower; the input
    is added where sizes allow."""

    kernel: int
    stride: int
    expansion: int
    features: int

    @nn.compact
    def __call__(self, x: convolution.FeatureMap) -> Float[jax.Array, "B _ _ _"]:
        width, h = x.shape[-1] * self.expansion, x
        if self.expansion > 1:
            h = conv_norm.ConvNorm(width, activation="relu6", name="expand")(h)
        h = conv_norm.ConvNorm(
            width, self.kernel, self.stride, connections="depthwise", activation="relu6",
            name="depthwise",
        )(h)  # fmt: skip
        h = conv_norm.ConvNorm(self.features, activation="none", name="project")(h)
        return x + h if h.shape == x.shape else h


class EfficientNetLite0(nn.Module):
    """Standardised images → features (B, 1280) after the mean over places."""

    @nn.compact
    def __call__(self, image: Float[arrays.AnyArray, "B H W 3"]) -> arrays.Embedding:
        x = conv_norm.ConvNorm(32, 3, 2, activation="relu6", name="stem")(image)
        number = 0
        for count, kernel, stride, expansion, width in _STAGES:
            for i in range(count):
                step = stride if i == 0 else 1
                x = Block(kernel, step, expansion, width, name=f"block_{number}")(x)
                number += 1
        x = conv_norm.ConvNorm(DIM, activation="relu6", name="head")(x)
        return x.mean(axis=(1, 2))


def prepare(
    image_uint8: UInt8[arrays.AnyArray, "B H W 3"],
) -> Float[jax.Array, "B 224 224 3"]:
    """Whole images at 224 px, bilinear, antialiased, standardised as ImageNet is."""
    x = jnp.asarray(image_uint8, jnp.float32) / 255
    size = (len(x), INPUT_PX, INPUT_PX, 3)
    if x.shape != size:
        x = jax.image.resize(x, size, "linear", precision="highest")
    return (x - jnp.array(_MEAN)) / jnp.array(_DEVIATION)


def features(
    params: Any, image_uint8: UInt8[arrays.AnyArray, "B H W 3"]
) -> Float[arrays.AnyArray, "B 1280"]:
    """Features of images of any one size."""
    return EfficientNetLite0().apply({"params": params}, prepare(image_uint8))
