"""The diffusion transformer (Peebles and Xie 2023) with PixArt's blocks (Chen et al. 2023): patches
of latents attend to each other and to embedding tokens.

One layer makes the modulation of all blocks from the timestep (adaLN-single), to which each block
adds a table of its own. The parameters of all blocks lie in the same arrays, one after the other
along the leading axis, whether blocks are computed in a loop or written out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention, blocks, layers
from ssldiff_jax.diffusion import cells
from ssldiff_jax.diffusion import positions as positions_lib

_EPSILON = 1e-6
# Sines and cosines that the timestep is given by, as published.
TIME_CHANNELS = 256


@dataclasses.dataclass(frozen=True)
class Shape:
    """Width, blocks, and heads of each."""

    width: int
    depth: int
    num_heads: int

    def __post_init__(self):
        if min(self.width, self.depth, self.num_heads) < 1 or self.width % self.num_heads:
            raise ValueError(
                "num_heads must divide width and depth be at least 1, got "
                f"width={self.width}, depth={self.depth}, num_heads={self.num_heads}"
            )
        # Sines and cosines of two axes.
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer: (width, depth, heads) of S, B, L and XL are in `SIZES`.

    Attributes:
        latent_channels: of the latents.
        patch: latents on the side of a patch; a window's sides are multiples of it.
        shape: width, depth and heads.
        mlp: gelu (tanh form) of four times the width, or swiglu of as many parameters.
        conditioning: tokens by cross attention, as published, or beside the timestep in the
            modulation of the patches that each covers (scale_shift).
        positions: see `PositionsConfig`.
    """

    latent_channels: int
    patch: int
    shape: Shape
    mlp: Literal["gelu", "swiglu"]
    conditioning: Literal["cross_attention", "scale_shift"]
    positions: positions_lib.PositionsConfig

    def __post_init__(self):
        if self.patch < 1:
            raise ValueError(f"patch must be at least 1, got {self.patch}")

    @property
    def side_multiple(self) -> int:
        """What sides of a window are multiples of."""
        return self.patch

    def patches(self, x_t: arrays.Latents) -> tuple[int, int]:
        """Rows and columns of patches of a window.

        Raises ValueError for sides that are no multiples of the patch.
        """
        _, height, width, _ = x_t.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"sides of a window must be multiples of the patch, got {height} × {width}, "
                f"patch={self.patch}"
            )
        return height // self.patch, width // self.patch


SIZES: Mapping[str, Shape] = {
    "S": Shape(384, 12, 6),
    "B": Shape(768, 12, 12),
    "L": Shape(1024, 24, 16),
    "XL": Shape(1152, 28, 16),
}
"""Of Peebles and Xie 2023, table 1."""


class Block(nn.Module):
    """Self attention, attention to tokens where there are any, MLP, each residual.

    `modulation` (shift, scale, gate of attention, then of the MLP) is that of the window, or of
    each patch; where both gates are 0 and no token says anything, a block is the identity.
    """

    config: DiTConfig

    @nn.compact
    def __call__(
        self,
        x: arrays.Tokens,
        modulation: Float[arrays.AnyArray, "B _ 6*D"],
        tokens: Float[arrays.AnyArray, "B M D"] | None,
    ) -> arrays.Tokens:
        width, heads = self.config.shape.width, self.config.shape.num_heads
        table = self.param("table", nn.initializers.zeros, (6, width))
        parts = modulation.reshape(*modulation.shape[:2], 6, width) + table
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.unstack(parts, axis=2)

        h = modulated(x, shift, scale)
        q, k, v = jnp.split(nn.Dense(3 * width, name="qkv")(h), 3, axis=-1)
        h = nn.Dense(width, name="out")(attention.attend(q, k, v, heads))
        x = x + gate * h

        if tokens is not None:
            x = x + CrossAttention(heads, name="cross")(x, tokens)

        h = modulated(x, shift_mlp, scale_mlp)
        if self.config.mlp == "swiglu":
            hidden = nn.Dense(2 * swiglu_width(width), name="mlp_in")(h)
            value, inner = jnp.split(hidden, 2, axis=-1)
            h = nn.silu(value) * inner
        else:
            h = nn.gelu(nn.Dense(4 * width, name="mlp_in")(h), approximate=True)
        return layers.end_of_block(x + gate_mlp * nn.Dense(width, name="mlp_out")(h))


class CrossAttention(nn.Module):
    """Queries from x, keys and values from tokens; nothing at the start. Of one token alone it is
    the same for all x, (B, 1, D)."""

    num_heads: int

    @nn.compact
    def __call__(
        self, x: arrays.Tokens, tokens: Float[arrays.AnyArray, "B M D"]
    ) -> Float[jax.Array, "B _ D"]:
        width = x.shape[-1]
        k, v = jnp.split(nn.Dense(2 * width, name="kv")(tokens), 2, axis=-1)
        out = nn.Dense(width, kernel_init=nn.initializers.zeros, name="out")
        if tokens.shape[1] == 1 and not self.is_initializing():
            # Softmax over one token is 1, whatever the query.
            return out(v)
        return out(attention.attend(nn.Dense(width, name="q")(x), k, v, self.num_heads))


class DiT(nn.Module):
    """(x_t, t, tokens) → prediction, at the shape of x_t.

    Sides of x_t must be multiples of `patch`. Tokens are as wide as the network. With a `layout`
    they have places: with `scale_shift` each leads the patches that it covers, with
    `cross_attention` patches attend to all of them. `beside_t` is added to the embedding of t, and
    `controls` to what the first blocks give.
    """

    config: DiTConfig

    @nn.compact
    def __call__(
        self,
        x_t: arrays.Latents,
        t: arrays.Timestep,
        tokens: Float[arrays.AnyArray, "B M D"],
        layout: cells.Layout | None = None,
        beside_t: Float[arrays.AnyArray, "B D"] | None = None,
        controls: Float[arrays.AnyArray, "n B L D"] | None = None,
    ) -> arrays.Latents:
        c, dim = self.config, self.config.shape.width
        rows, cols = c.patches(x_t)
        zeros = nn.initializers.zeros

        time = layers.timestep_embedding(t, TIME_CHANNELS).astype(x_t.dtype)
        time = nn.Dense(dim, name="time_out")(nn.silu(nn.Dense(dim, name="time_in")(time)))
        if beside_t is not None:
            time = time + beside_t
        time = time[:, None]  # (B, 1, D), and (B, M, D) once tokens differ
        if c.conditioning == "scale_shift":
            time = time + (tokens if layout is not None else tokens.mean(axis=1, keepdims=True))
            tokens = None
        modulation = nn.Dense(6 * dim, kernel_init=zeros, name="modulation")(nn.silu(time))

        x = nn.Dense(dim, name="patch_in")(_to_patches(jnp.asarray(x_t), c.patch))
        x = x + positions_lib.of_patches(c.positions, rows, cols, dim).astype(x.dtype)
        at = None if layout is None else layout.coordinates(rows, cols)
        if at is not None:
            x = x + nn.Dense(dim, name="place_in")(_in_a_row(at).astype(x.dtype))
        if time.shape[1] > 1:
            time, modulation = (_in_a_row(layout.spread(y, rows, cols)) for y in (time, modulation))
        x, _ = Blocks(c, name="blocks")(x, modulation, tokens, controls)

        table = self.param("table_out", zeros, (2, dim))
        shift, scale = jnp.unstack(time[:, :, None] + table, axis=2)
        # Starts at a prediction of 0, as the UNet.
        values = c.patch**2 * x_t.shape[-1]
        x = nn.Dense(values, kernel_init=zeros, name="patch_out")(modulated(x, shift, scale))
        return layers.pixel_shuffle(x.reshape(-1, rows, cols, values), c.patch)


class Conditioner(nn.Module):
    """Embeddings (B, M, E), those of each cell row by row → tokens (B, M, D): Linear, GELU, Linear.

    With a `layout` sines of where tokens lie among patches of the window, `rows` × `cols`, are
    added before. A zero vector is the null embedding: in its place stands a learnt vector, one for
    each of the `per_cell` tokens of a cell.
    """

    config: DiTConfig
    per_cell: int = 1

    @nn.compact
    def __call__(
        self,
        embedding: Float[arrays.AnyArray, "B M E"],
        layout: cells.Layout | None,
        rows: int,
        cols: int,
    ) -> Float[jax.Array, "B M D"]:
        dim, (_, count, channels) = self.config.shape.width, embedding.shape
        small = nn.initializers.normal(0.02)
        null = self.param("null", small, (self.per_cell, channels))
        null = jnp.tile(null, (count // self.per_cell, 1))
        is_null = jnp.all(embedding == 0, axis=-1, keepdims=True)
        embedding = jnp.where(is_null, null, embedding.astype(null.dtype))
        if layout is not None:
            at = positions_lib.of_tokens(self.config.positions, layout.place, rows, cols, channels)
            embedding = embedding + at.astype(null.dtype)
        hidden = nn.gelu(nn.Dense(dim, name="token_in")(embedding), approximate=True)
        return nn.Dense(dim, name="token_out")(hidden)


class Blocks(nn.Module):
    """All blocks, one after the other → what the last gives, and with `keep` what each does
    (depth, B, L, D), before `controls` are added to the first ones.

    Parameters (depth, …) are those of `Block`, stacked.
    """

    config: DiTConfig
    keep: Literal["last", "all"] = "last"

    @nn.compact
    def __call__(
        self,
        x: arrays.Tokens,
        modulation: Float[arrays.AnyArray, "B _ 6*D"],
        tokens: Float[arrays.AnyArray, "B M D"] | None,
        controls: Float[arrays.AnyArray, "n B L D"] | None = None,
    ) -> tuple[arrays.Tokens, Float[jax.Array, "depth B L D"] | None]:
        depth, block = self.config.shape.depth, Block(self.config, parent=None)

        def init(key: arrays.Key) -> Any:
            of_one = lambda key: block.init(key, x, modulation, tokens)["params"]
            return jax.vmap(of_one)(jax.random.split(key, depth))

        def step(x: arrays.Tokens, of_block: tuple[Any, Any]) -> tuple[arrays.Tokens, Any]:
            params, control = of_block
            y = block.apply({"params": params}, x, modulation, tokens)
            return y if control is None else y + control, y if self.keep == "all" else None

        stacked = self.param(blocks.STACKED, init)
        if controls is not None:
            rest = jnp.zeros((depth - len(controls), *controls.shape[1:]), controls.dtype)
            controls = jnp.concatenate([controls, rest])
        return blocks.fold(step, x, (stacked, controls), depth)


def modulated(
    x: arrays.Tokens, shift: Float[jax.Array, "B _ D"], scale: Float[jax.Array, "B _ D"]
) -> arrays.Tokens:
    """Layer norm without parameters, shifted and scaled."""
    norm = nn.LayerNorm(epsilon=_EPSILON, use_bias=False, use_scale=False)
    return norm(x) * (1 + scale) + shift


def swiglu_width(width: int) -> int:
    """Hidden width of a SwiGLU of about as many parameters as an MLP of four times the width."""
    return -(-8 * width // 24) * 8


def _to_patches(x_t: Float[jax.Array, "B h w C"], patch: int) -> arrays.Tokens:
    return _in_a_row(layers.pixel_unshuffle(x_t, patch))


def _in_a_row(x: Float[jax.Array, "B h w C"]) -> arrays.Tokens:
    return x.reshape(x.shape[0], -1, x.shape[-1])
