"""A ControlNet beside the transformer (Zhang et al. 2023, in the form of PixArt-δ and PixCell): a
map of what should lie where, as latents, leads the first blocks."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, layers
from ssldiff_jax.diffusion import cells
from ssldiff_jax.diffusion import dit as dit_lib
from ssldiff_jax.diffusion import positions as positions_lib


@dataclasses.dataclass(frozen=True)
class ControlConfig:
    """A published ControlNet: its file or folder, "" for none, and how much of it is added, 1 as it
    was trained."""

    weights: str
    scale: float


@dataclasses.dataclass(frozen=True)
class Control:
    """How many blocks of a transformer are led, and how much is added to what they give."""

    depth: int
    scale: float


class ControlNet(nn.Module):
    """(x_t, t, embeddings, map) → what is added to each of the first blocks of a transformer of
    `config`, (depth, B, L, D).

    Blocks and conditioner are the transformer's, with weights of their own; nothing comes out at
    the start. The map is latents, as large as x_t.
    """

    config: dit_lib.DiTConfig
    depth: int
    per_cell: int = 1

    @nn.compact
    def __call__(
        self,
        x_t: arrays.Latents,
        t: arrays.Timestep,
        embedding: Float[arrays.AnyArray, "B M E"],
        layout: cells.Layout | None,
        latents_map: arrays.Latents,
    ) -> Float[jax.Array, "depth B L D"]:
        c, dim, zeros = self.config, self.config.shape.width, nn.initializers.zeros
        rows, cols = c.patches(x_t)
        conditioner = dit_lib.Conditioner(c, self.per_cell, name="conditioner")
        tokens = conditioner(embedding, layout, rows, cols).astype(x_t.dtype)
        time = layers.timestep_embedding(t, dit_lib.TIME_CHANNELS).astype(x_t.dtype)
        time = nn.Dense(dim, name="time_out")(nn.silu(nn.Dense(dim, name="time_in")(time)))
        modulation = nn.Dense(6 * dim, kernel_init=zeros, name="modulation")(nn.silu(time))

        x, shown = (
            layers.pixel_unshuffle(y, c.patch).reshape(len(y), rows * cols, -1)
            for y in (x_t, latents_map.astype(x_t.dtype))
        )
        # Both have positions of their own, as published: they are added twice.
        at = positions_lib.of_patches(c.positions, rows, cols, dim).astype(x.dtype)
        x = nn.Dense(dim, name="patch_in")(x) + at
        x = x + nn.Dense(dim, kernel_init=zeros, name="map_in")(shown) + at

        shape = dataclasses.replace(c.shape, depth=self.depth)
        blocks = dit_lib.Blocks(dataclasses.replace(c, shape=shape), keep="all", name="blocks")
        _, kept = blocks(x, modulation[:, None], tokens)
        return _Outputs(name="control_out")(kept)


class _Outputs(nn.Module):
    """A layer for each block, at zero at the start."""

    @nn.compact
    def __call__(self, x: Float[jax.Array, "depth B L D"]) -> Float[jax.Array, "depth B L D"]:
        depth, dim, zeros = len(x), x.shape[-1], nn.initializers.zeros
        kernel = self.param("kernel", zeros, (depth, dim, dim))
        bias = self.param("bias", zeros, (depth, dim))
        return jnp.einsum("nbld,nde->nble", x, kernel) + bias[:, None, None]
