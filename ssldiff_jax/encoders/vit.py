"""The vision transformer (Dosovitskiy et al. 2021) with pre-norm blocks, as DINO(v2) uses it."""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention, convolution, layers
from ssldiff_jax.encoders import rotary

Pool = Literal["class", "mean", "class_mean"]
PositionResize = Literal["timm", "dino", "hugging_face"]


@dataclasses.dataclass(frozen=True)
class ViTVariant:
    """What sets families of ViTs apart; `PLAIN` is the first of them.

    Attributes:
        mlp: gelu, or swiglu (silu of the first half times the second).
        mlp_width: hidden width; 0 is four times the width.
        num_registers: further tokens that carry nothing of the image (DINOv2 with registers).
        layer_scale: where learned scales of the residuals start; 0 has none.
        positions: whether position embeddings cover the class token and patches (all), registers
            too (registers), or patches only; or rotary: none are learned, queries and keys of
            patches are turned by where they lie, and keys have no bias (DINOv3).
        resize: how they are fitted to another image size; libraries differ, and so do features.
        epsilon: of the layer norms.
    """

    mlp: Literal["gelu", "swiglu"]
    mlp_width: int
    num_registers: int
    layer_scale: float
    positions: Literal["all", "patches", "registers", "rotary"]
    resize: PositionResize
    epsilon: float


PLAIN = ViTVariant(
    mlp="gelu",
    mlp_width=0,
    num_registers=0,
    layer_scale=0.0,
    positions="all",
    resize="timm",
    epsilon=1e-6,
)
"""The ViT of Dosovitskiy et al. 2021, as timm has it."""


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes. `pool` makes the embedding: the class token, the mean of patch tokens, or both of
    them, one after the other."""

    image_px: int
    patch_px: int
    width: int
    depth: int
    num_heads: int
    pool: Pool
    variant: ViTVariant

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
        if self.variant.positions == "rotary" and self.width // self.num_heads % 4:
            raise ValueError(
                "heads must be a multiple of 4 wide with positions=rotary, got "
                f"width={self.width}, num_heads={self.num_heads}"
            )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return 2 * self.width if self.pool == "class_mean" else self.width

    @property
    def side(self) -> int:
        """Patches along a side of the images that positions are for."""
        return self.image_px // self.patch_px

    @property
    def num_positions(self) -> int:
        """Position embeddings that are learned."""
        if self.variant.positions == "rotary":
            return 0
        of_others = {"patches": 0, "all": 1, "registers": 1 + self.variant.num_registers}
        return self.side**2 + of_others[self.variant.positions]


class Block(nn.Module):
    """Attention and MLP, each behind a norm and residual."""

    num_heads: int
    variant: ViTVariant

    @nn.compact
    def __call__(
        self, x: arrays.Tokens, angles: Float[np.ndarray, "P half"] | None = None
    ) -> arrays.Tokens:
        width, v = x.shape[-1], self.variant
        hidden = v.mlp_width or 4 * width
        h = nn.LayerNorm(epsilon=v.epsilon, name="norm1")(x)
        query, key, value = jnp.split(self._qkv(h), 3, axis=-1)
        if angles is not None:
            query, key = (rotary.rotated(part, angles, self.num_heads) for part in (query, key))
        h = attention.attend(query, key, value, self.num_heads)
        x = x + self._scaled("scale1", nn.Dense(width, name="proj")(h))
        h = nn.LayerNorm(epsilon=v.epsilon, name="norm2")(x)
        if v.mlp == "swiglu":
            gate, value = jnp.split(nn.Dense(2 * hidden, name="fc1")(h), 2, axis=-1)
            h = nn.silu(gate) * value
        else:
            # torch's default is the exact GELU, flax's the tanh approximation.
            h = nn.gelu(nn.Dense(hidden, name="fc1")(h), approximate=False)
        return layers.end_of_block(x + self._scaled("scale2", nn.Dense(width, name="fc2")(h)))

    def _qkv(self, h: arrays.Tokens) -> Float[jax.Array, "B L E"]:
        width, is_rotary = h.shape[-1], self.variant.positions == "rotary"
        qkv = nn.Dense(3 * width, use_bias=not is_rotary, name="qkv")(h)
        if not is_rotary:
            return qkv
        # A bias of keys would be turned with them, and count where tokens lie.
        query, value = jnp.split(self.param("qv_bias", nn.initializers.zeros, (2 * width,)), 2)
        return qkv + jnp.concatenate([query, jnp.zeros_like(query), value])

    def _scaled(self, name: str, h: jax.Array) -> jax.Array:
        if not self.variant.layer_scale:
            return h
        start = nn.initializers.constant(self.variant.layer_scale)
        return h * self.param(name, start, h.shape[-1:])


class ViT(nn.Module):
    """Images in [−1, 1] → embeddings; `tokens` gives the normalised patch tokens instead."""

    config: ViTConfig

    def setup(self):
        c, v = self.config, self.config.variant
        size = (c.patch_px, c.patch_px)
        self.patch_embed = nn.Conv(
            c.width, size, size, padding="VALID", conv_general_dilated=convolution.convolve
        )
        small = nn.initializers.normal(0.02)
        self.class_token = self.param("class_token", small, (1, 1, c.width))
        if v.num_registers:
            registers = (1, v.num_registers, c.width)
            self.register_tokens = self.param("register_tokens", small, registers)
        if c.num_positions:
            self.position = self.param("position", small, (1, c.num_positions, c.width))
        self.blocks = [Block(c.num_heads, v) for _ in range(c.depth)]
        self.norm = nn.LayerNorm(epsilon=v.epsilon)

    def __call__(self, image: arrays.Image) -> arrays.Embedding:
        return self.whole_and_squares(image, 1)[0]

    def tokens(self, image: arrays.Image) -> arrays.Tokens:
        """Patch tokens `(B, L, width)` after the last norm, row by row."""
        return self.all_tokens(image)[:, self._prefix :]

    def whole_and_squares(
        self, image: arrays.Image, per_side: int
    ) -> tuple[arrays.Embedding, Float[arrays.AnyArray, "B M E"]]:
        """The embedding, and one for each of `per_side`² squares of patches, row by row: the mean
        of its patch tokens; where an embedding begins with the class token, so does each."""
        x, pool = self.all_tokens(image), self.config.pool
        whole, tokens = x[:, :1], x[:, self._prefix :]
        averages = squares(tokens, per_side).mean(axis=2)
        if pool == "class":
            return whole[:, 0], averages
        mean = tokens.mean(axis=1)
        if pool == "mean":
            return mean, averages
        shared = jnp.broadcast_to(whole, averages.shape)
        both = jnp.concatenate([shared, averages], axis=-1)
        return jnp.concatenate([whole[:, 0], mean], axis=-1), both

    def all_tokens(self, image: arrays.Image) -> arrays.Tokens:
        """Class token, registers and patch tokens after the last norm."""
        x = self.patch_embed(image)
        b, rows, cols, width = x.shape
        x, v = x.reshape(b, rows * cols, width), self.config.variant
        first, angles = self.class_token, None
        if v.positions == "rotary":
            angles = rotary.angles(rows, cols, width // self.config.num_heads)
        else:
            x = x + self._patch_positions(rows, cols)
        if v.positions == "all":
            first = first + self.position[:, :1]
        if v.num_registers:
            # After the class token's position: registers mostly lie nowhere.
            first = jnp.concatenate([first, self.register_tokens], axis=1)
        if v.positions == "registers":
            first = first + self.position[:, : self._prefix]
        x = jnp.concatenate([jnp.broadcast_to(first, (b, *first.shape[1:])), x], axis=1)
        for block in self.blocks:
            x = block(x, angles)
        return self.norm(x)

    @property
    def _prefix(self) -> int:
        return 1 + self.config.variant.num_registers

    def _patch_positions(self, rows: int, cols: int) -> Float[arrays.AnyArray, "1 L D"]:
        side = self.config.side
        # Those of other tokens, where there are some, come first.
        own = self.position[:, -side * side :]
        return fitted(own, (side, side), (rows, cols), self.config.variant.resize)


def squares(tokens: arrays.Tokens, per_side: int) -> Float[arrays.AnyArray, "B M P D"]:
    """A square of tokens, row by row, taken apart into `per_side`² of equal squares; any number of
    them may be taken as one."""
    count, length, width = tokens.shape
    if per_side == 1:
        return tokens[:, None]
    each = math.isqrt(length) // per_side
    split = tokens.reshape(count, per_side, each, per_side, each, width)
    return split.swapaxes(2, 3).reshape(count, per_side**2, each * each, width)


def fitted(
    positions: Float[arrays.AnyArray, "1 N D"],
    old: tuple[int, int],
    new: tuple[int, int],
    rule: PositionResize,
) -> Float[arrays.AnyArray, "1 L D"]:
    """Position embeddings of a grid of rows and columns, for a grid of others."""
    if old == new:
        return positions
    # Bicubic weights are a product of one for the row and one for the column.
    grid = positions.reshape(*old, -1)
    grid = jnp.einsum("ri,ijd->rjd", resize_matrix(old[0], new[0], rule), grid)
    grid = jnp.einsum("cj,rjd->rcd", resize_matrix(old[1], new[1], rule), grid)
    # The matrices are float32 and would promote bfloat16.
    return grid.reshape(1, new[0] * new[1], -1).astype(positions.dtype)


def resize_matrix(old: int, new: int, rule: PositionResize) -> Float[np.ndarray, "new old"]:
    """Bicubic resizing of one axis as a matrix.

    timm: a = −½, antialiased, weights renormalised at the border. hugging_face: a = −¾, not
    antialiased, the border continued. dino: the same, with the scale (new + 0.1) / old.
    """
    # DINO adds 0.1 so that rounding never makes one position too few; its features have it in them.
    scale = (new + 0.1) / old if rule == "dino" else new / old
    source = (np.arange(new) + 0.5) / scale - 0.5
    if rule == "timm":
        # Pillow's cubic has a = −½, torch's without antialiasing a = −¾.
        reach = max(1.0, 1 / scale)
        weights = _cubic((source[:, None] - np.arange(old)) / reach, a=-0.5)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    taps = np.floor(source)[:, None] + np.arange(-1, 3)
    columns = np.clip(taps, 0, old - 1).astype(int)
    matrix = np.zeros((new, old))
    rows = np.arange(new)[:, None]
    np.add.at(matrix, (rows, columns), _cubic(source[:, None] - taps, a=-0.75))
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
