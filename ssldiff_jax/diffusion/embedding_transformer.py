"""ZoomLDM's conditioner (Yellapragada et al. 2025): a transformer over a level and the grid of
embeddings of a patch.

One to 64 embeddings stand in the middle of 64 places, a learnt token on all others; the level
stands before them. What comes out, 65 tokens, is what pixels attend to.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ssldiff_jax.core import arrays
from ssldiff_jax.encoders import vit

PLACES = 64
"""Embeddings of a patch, at most: a grid of 8 × 8."""

# Of a deviation, as published.
_LEAST_DEVIATION = 1e-8


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes: as wide as the tokens that it gives."""

    depth: int
    num_heads: int
    mlp_width: int


def standardised(embedding: Float[arrays.AnyArray, "*B D"]) -> Float[jax.Array, "*B D"]:
    """(z − mean) / (deviation + 1e-8) over the numbers of each embedding; the deviation counts
    N − 1."""
    z = jnp.asarray(embedding)
    centred = z - jnp.mean(z, axis=-1, keepdims=True)
    return centred / (jnp.std(z, axis=-1, ddof=1, keepdims=True) + _LEAST_DEVIATION)


def first_place(count: Int[arrays.AnyArray, "*B"] | int) -> Int[arrays.AnyArray, "*B"] | int:
    """Where the first of `count` embeddings stands, so that they are in the middle: one alone at
    32."""
    return PLACES // 2 - count // 2


class EmbeddingTransformer(nn.Module):
    """Embeddings (B, M, D), of which the first `count` of each patch are there, and the number of
    its level, from 0 → tokens (B, 65, width)."""

    config: TransformerConfig
    width: int
    num_levels: int

    @nn.compact
    def __call__(
        self,
        embedding: Float[arrays.AnyArray, "B M D"],
        count: Int[arrays.AnyArray, "B"],
        level: Int[arrays.AnyArray, "B"],
    ) -> Float[jax.Array, "B 65 width"]:
        c, normal = self.config, nn.initializers.normal
        reduced = nn.Dense(self.width, name="reduce")(embedding)
        pad = self.param("pad", normal(1.0), (1, 1, self.width))
        x, is_there = _in_the_middle(reduced, count)
        x = jnp.where(is_there[..., None], x, pad.astype(x.dtype))
        of_level = nn.Embed(self.num_levels, self.width, name="level")(level)
        x = jnp.concatenate([of_level[:, None].astype(x.dtype), x], axis=1)
        x = x + self.param("position", normal(0.02), (1, PLACES + 1, self.width))
        variant = dataclasses.replace(vit.PLAIN, mlp_width=c.mlp_width)
        for i in range(c.depth):
            x = vit.Block(c.num_heads, variant, name=f"block_{i}")(x)
        x = nn.LayerNorm(epsilon=variant.epsilon, name="norm")(x)
        # torch's default, which published weights were trained with.
        return nn.LayerNorm(epsilon=1e-5, name="norm_out")(nn.Dense(self.width, name="out")(x))


def _in_the_middle(
    x: Float[jax.Array, "B M D"], count: Int[arrays.AnyArray, "B"]
) -> tuple[Float[jax.Array, "B 64 D"], Bool[jax.Array, "B 64"]]:
    """The first `count` of each row at their places, and which places these are."""
    # Places − first is the number of the embedding that stands there, if one does.
    number = jnp.arange(PLACES)[None] - first_place(count)[:, None]
    is_there = (number >= 0) & (number < count[:, None])
    chosen = jnp.clip(number, 0, x.shape[1] - 1)
    return jnp.take_along_axis(x, chosen[..., None], axis=1), is_there
