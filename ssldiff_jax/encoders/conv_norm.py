"""Convolution, batch norm by recorded moments, and what follows: a layer of published networks."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import convolution

FeatureMap = convolution.FeatureMap
Size = int | tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; one filter for each channel where it is
    depthwise."""

    features: int
    kernel: Size = 1
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"
    connections: Literal["all", "depthwise"] = "all"
    activation: Literal["relu", "relu6", "none"] = "relu"

    @nn.compact
    def __call__(self, x: FeatureMap) -> Float[jax.Array, "B _ _ _"]:
        size = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        x = nn.Conv(
            self.features,
            size,
            self.stride,
            padding=self.padding,
            feature_group_count=1 if self.connections == "all" else self.features,
            use_bias=False,
            conv_general_dilated=convolution.convolve,
            name="conv",
        )(x)
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        mean, variance = self._vector("mean", zeros), self._vector("variance", ones)
        # The epsilon of these networks' batch norms in TensorFlow; 1e-5 elsewhere.
        gain = self._vector("scale", ones) * jax.lax.rsqrt(variance + 1e-3)
        return self._activate((x - mean) * gain + self._vector("bias", zeros))

    def _activate(self, x: FeatureMap) -> FeatureMap:
        if self.activation == "none":
            return x
        return jnp.maximum(x, 0) if self.activation == "relu" else jnp.clip(x, 0, 6)

    def _vector(self, name: str, start: nn.initializers.Initializer) -> Float[jax.Array, "C"]:
        return self.param(name, start, (self.features,))
