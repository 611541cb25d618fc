"""The patch discriminator (Isola et al. 2017) and its losses, weighted as Esser et al. 2021 do."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, collectives, layers


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """`weight` 0 trains without a discriminator. It enters the loss at `start_step`, where the
    reconstruction is no longer noise; `channels` doubles in each of `num_layers` halvings."""

    weight: float
    start_step: int
    channels: int
    num_layers: int


class Discriminator(nn.Module):
    """Images → one logit for each overlapping patch, high for real.

    Group norms stand where the paper has batch norms: what one device sees does not matter.
    """

    config: AdversarialConfig

    @nn.compact
    def __call__(self, image: arrays.BandImage) -> layers.FeatureMap:
        leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)

        def conv(features: int, stride: int, name: str) -> nn.Module:
            return layers.conv(features, kernel=4, stride=stride, padding=1, name=name)

        h = leaky(conv(self.config.channels, 2, "conv_in")(image))
        for i in range(1, self.config.num_layers + 1):
            # Isola et al.: no norm after the first layer, at most 8 times its channels, the last of
            # the doublings without stride.
            features = self.config.channels * min(2**i, 8)
            stride = 2 if i < self.config.num_layers else 1
            h = conv(features, stride, f"conv_{i}")(h)
            h = leaky(layers.group_norm(features, epsilon=1e-5, name=f"norm_{i}")(h))
        return conv(1, 1, "conv_out")(h)


def hinge_loss(real: layers.FeatureMap, fake: layers.FeatureMap) -> Float[jax.Array, ""]:
    """The discriminator's: real above 1, fake below −1."""
    return 0.5 * (jnp.mean(nn.relu(1 - real)) + jnp.mean(nn.relu(1 + fake)))


def adaptive_weight(
    reconstruction_loss: Callable[[arrays.BandImage], jax.Array],
    adversarial_loss: Callable[[arrays.BandImage], jax.Array],
    image: arrays.BandImage,
    to_last_layer: Callable[[arrays.BandImage], tuple[jax.Array]],
) -> Float[jax.Array, ""]:
    """|∇ reconstruction| / |∇ adversarial| at the decoder's last layer (Esser et al. 2021, eq. 7),
    so that neither drowns the other; `to_last_layer` pulls a gradient back from the image."""

    def size(loss: Callable[[arrays.BandImage], jax.Array]) -> jax.Array:
        (gradient,) = to_last_layer(jax.grad(loss)(image))
        return jnp.linalg.norm(collectives.pmean(gradient))

    # δ and the upper bound of taming-transformers, which publishes the paper's models.
    ratio = size(reconstruction_loss) / (size(adversarial_loss) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, 1e4))
