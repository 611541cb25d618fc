"""The vision transformer (Dosovitskiy et al. 2021) with pre-norm blocks, as DINO uses it."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention, layers


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes; ViT-S/16 is the default. `pool` makes the embedding of class token or patch mean."""

    image_px: int = 256
    patch_px: int = 16
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    pool: Literal["class", "mean"] = "class"

    def __post_init__(self):
        if self.image_px % self.patch_px:
            raise ValueError(
                f"image_px must be a multiple of patch_px, got image_px={self.image_px}, "
                f"patch_px={self.patch_px}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width, got width={self.width}, num_heads={self.num_heads}"
            )


class Block(nn.Module):
    """Attention and MLP, each behind a norm and residual."""

    num_heads: int

    @nn.compact
    def __call__(self, x: arrays.Tokens) -> jax.Array:
        width = x.shape[-1]
        qkv = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(epsilon=1e-6, name="norm1")(x))
        h = attention.attend(*jnp.split(qkv, 3, axis=-1), self.num_heads)
        x = x + nn.Dense(width, name="proj")(h)
        h = nn.Dense(4 * width, name="fc1")(nn.LayerNorm(epsilon=1e-6, name="norm2")(x))
        return x + nn.Dense(width, name="fc2")(nn.gelu(h, approximate=False))


class ViT(nn.Module):
    """Images in [−1, 1] → embeddings; `tokens` gives the normalised patch tokens instead."""

    config: ViTConfig

    def setup(self):
        c = self.config
        size = (c.patch_px, c.patch_px)
        self.patch_embed = nn.Conv(
            c.width, size, size, padding="VALID", conv_general_dilated=layers.convolve
        )
        self.class_token = self.param("class_token", nn.initializers.normal(0.02), (1, 1, c.width))
        side = c.image_px // c.patch_px
        self.position = self.param(
            "position", nn.initializers.normal(0.02), (1, side * side + 1, c.width)
        )
        self.blocks = [Block(c.num_heads) for _ in range(c.depth)]
        self.norm = nn.LayerNorm(epsilon=1e-6)

    def __call__(self, image: arrays.Image) -> arrays.Embedding:
        x = self._forward(image)
        return x[:, 0] if self.config.pool == "class" else x[:, 1:].mean(axis=1)

    def tokens(self, image: arrays.Image) -> arrays.Tokens:
        """Patch tokens `(B, L, width)` after the last norm."""
        return self._forward(image)[:, 1:]

    def _forward(self, image: arrays.Image) -> jax.Array:
        x = self.patch_embed(image)
        b, rows, cols, width = x.shape
        x = x.reshape(b, rows * cols, width)
        x = jnp.concatenate([jnp.broadcast_to(self.class_token, (b, 1, width)), x], axis=1)
        x = x + self._position(rows, cols)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _position(self, rows: int, cols: int) -> Float[jax.Array, "1 L D"]:
        side = self.config.image_px // self.config.patch_px
        if (rows, cols) == (side, side):
            return self.position
        grid = self.position[:, 1:].reshape(1, side, side, -1)
        grid = jax.image.resize(grid, (1, rows, cols, grid.shape[-1]), "cubic", antialias=False)
        return jnp.concatenate([self.position[:, :1], grid.reshape(1, rows * cols, -1)], axis=1)
