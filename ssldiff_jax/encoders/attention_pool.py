"""A vision transformer whose embedding one learned query takes from its tokens by attention, as
contrastive captioners have it (Yu et al. 2022); CONCH v1.5 is one."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention
from ssldiff_jax.encoders import vit

# torch's default, beside the ViT's own.
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class AttentionPool:
    """Sizes of the query's attention, and which tokens it looks at: all, or those of patches."""

    dim: int
    num_heads: int
    tokens: Literal["all", "patches"] = "all"


class AttentionPooledViT(nn.Module):
    """Images → embeddings; `tokens` gives the ViT's patch tokens."""

    config: vit.ViTConfig
    head: AttentionPool

    def setup(self):
        self.trunk = vit.ViT(self.config)
        self.query = self.param("query", nn.initializers.normal(1.0), (1, self.head.dim))
        self.norm_query = nn.LayerNorm(epsilon=_EPSILON)
        self.norm_tokens = nn.LayerNorm(epsilon=_EPSILON)
        self.to_query, self.to_out = (nn.Dense(self.head.dim, use_bias=False) for _ in range(2))
        self.to_key_value = nn.Dense(2 * self.head.dim, use_bias=False)
        self.norm = nn.LayerNorm(epsilon=_EPSILON)

    def __call__(self, image: arrays.Image) -> arrays.Embedding:
        return self.whole_and_squares(image, 1)[0]

    def tokens(self, image: arrays.Image) -> arrays.Tokens:
        """Patch tokens `(B, L, width)` after the ViT's last norm, row by row."""
        return self.trunk.tokens(image)

    def all_tokens(self, image: arrays.Image) -> arrays.Tokens:
        """Class token, registers and patch tokens after the ViT's last norm."""
        return self.trunk.all_tokens(image)

    def whole_and_squares(
        self, image: arrays.Image, per_side: int
    ) -> tuple[arrays.Embedding, Float[arrays.AnyArray, "B M E"]]:
        """The embedding, and what the query takes from the patch tokens of each of `per_side`²
        squares alone, row by row."""
        x = self.trunk.all_tokens(image)
        patches = x[:, 1 + self.config.variant.num_registers :]
        parts = vit.squares(patches, per_side)
        each = self._pooled(parts.reshape(-1, *parts.shape[2:])).reshape(*parts.shape[:2], -1)
        return self._pooled(x if self.head.tokens == "all" else patches), each

    def _pooled(self, tokens: arrays.Tokens) -> Float[arrays.AnyArray, "B E"]:
        key, value = jnp.split(self.to_key_value(self.norm_tokens(tokens)), 2, axis=-1)
        query = self.to_query(self.norm_query(self.query))
        query = jnp.broadcast_to(query, (len(tokens), *query.shape))
        h = attention.attend(query, key, value, self.head.num_heads)
        return self.norm(self.to_out(h)[:, 0])
