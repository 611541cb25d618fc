"""LPIPS (Zhang et al. 2018): weighted squared distances of unit VGG-16 features at five depths."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, layers

# Images in [−1, 1] to what VGG-16 was trained on.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)

# Convolutions of each depth: their index in the published file, and their channels.
VGG16 = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)


class VGGFeatures(nn.Module):
    """Images → features after the last ReLU of each depth."""

    @nn.compact
    def __call__(self, image: arrays.Image) -> list[jax.Array]:
        h, outputs = (image - _SHIFT) / _SCALE, []
        for depth, convolutions in enumerate(VGG16):
            if depth:
                h = nn.max_pool(h, (2, 2), (2, 2))
            for number, features in convolutions:
                h = nn.relu(layers.conv(features, name=f"conv_{number}")(h))
            outputs.append(h)
        return outputs


class LPIPS(nn.Module):
    """Pairs of images → distances `(B,)`, 0 for the same."""

    @nn.compact
    def __call__(self, x: arrays.Image, y: arrays.Image) -> Float[jax.Array, "B"]:
        features = VGGFeatures(name="vgg")
        total = jnp.zeros(x.shape[0])
        for depth, (a, b) in enumerate(zip(features(x), features(y), strict=True)):
            weight = self.param(f"linear_{depth}", nn.initializers.ones, (a.shape[-1],))
            total += jnp.mean((_unit(a) - _unit(b)) ** 2 @ weight, axis=(1, 2))
        return total


def _unit(features: layers.FeatureMap) -> jax.Array:
    # The published weights were fitted with this epsilon beside the length.
    return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + 1e-10)
