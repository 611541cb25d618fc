"""What a text that is worded from labels says of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.prior import conditions


class TextReader(nn.Module):
    """Phrases of a text → the parts of all classes in every quadrant, as they say.

    A quadrant's parts are a softmax, 1 together, to whose logits every phrase adds its own: so a
    phrase says alike in any company, and what one leaves open others narrow. Where nothing is said,
    training makes them the mean of what was measured.
    """

    spec: conditions.ConditionSpec
    width: int

    @nn.compact
    def __call__(self, parts: conditions.Parts) -> Float[jax.Array, "B 4 K"]:
        x, shape = phrases(self.spec, parts["text"]), (4, len(self.spec.areas))
        for name in ("in", "middle"):
            x = nn.gelu(nn.Dense(self.width, name=name)(x))
        said = nn.DenseGeneral(shape, use_bias=False, name="out")(x)
        rest = self.param("rest", nn.initializers.zeros, shape)
        return nn.softmax(rest + (said * parts["text_known"][..., None, None]).sum(axis=1))


def labels_of_quadrants(
    spec: conditions.ConditionSpec, in_quadrants: Float[arrays.AnyArray, "B 4 K"]
) -> Float[jax.Array, "B N"]:
    """The labels of areas from the parts of classes in quadrants."""
    whole = in_quadrants.mean(axis=1, keepdims=True)
    values = jnp.concatenate([whole, in_quadrants], axis=1)  # (B, 5, K)
    labels = jnp.zeros((len(in_quadrants), len(spec.labels)), in_quadrants.dtype)
    return labels.at[:, np.array(spec.areas).T].set(values)


def phrases(
    spec: conditions.ConditionSpec, text: Float[arrays.AnyArray, "B n"]
) -> Float[arrays.AnyArray, "B L D"]:
    return text.reshape(len(text), spec.text_phrases, spec.text_dim)
