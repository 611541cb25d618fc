"""A ControlNet beside the transformer (Zhang et al. 2023, as PixArt-δ and PixCell have it): a map of
what should lie where, as latents, leads the first blocks."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays, layers
from ssldiff_jax.diffusion import dit as dit_lib
from ssldiff_jax.diffusion import positions as positions_lib


@dataclasses.dataclass(frozen=True)
class ControlConfig:
    """A ControlNet of a published transformer.

    Attributes:
        weights: its file or folder; "" for none.
        scale: how much of it is added; 1 as it was trained.
    """

    weights: str
    scale: float


class ControlNet(nn.Module):
    """(x_t, t, tokens, map) → what is added to each of the first blocks of a transformer of
    `config`, (depth, B, L, D).

    Its blocks are the transformer's, with weights of their own; nothing comes out at the start.
    """

    config: dit_lib.DiTConfig
    depth: int

    @nn.compact
    def __call__(
        self,
        x_t: arrays.Latents,
        t: arrays.Timestep,
        tokens: Float[arrays.AnyArray, "B M D"],
        latents_map: arrays.Latents,
    ) -> Float[jax.Array, "depth B L D"]:
        c, dim, zeros = self.config, self.config.shape.width, nn.initializers.zeros
        rows, cols = (size // c.patch for size in x_t.shape[1:3])
        to_patches = lambda x: layers.pixel_unshuffle(x, c.patch).reshape(
            len(x), rows * cols, c.patch**2 * x.shape[-1]
        )
        time = layers.timestep_embedding(t, dit_lib.TIME_CHANNELS).astype(x_t.dtype)
        time = nn.Dense(dim, name="time_out")(nn.silu(nn.Dense(dim, name="time_in")(time)))
        modulation = nn.Dense(6 * dim, kernel_init=zeros, name="modulation")(nn.silu(time))

        x = nn.Dense(dim, name="patch_in")(to_patches(x_t))
        shown = to_patches(latents_map)
        # Both with positions of their own, as published: together twice.
        at = positions_lib.of_patches(c.positions, rows, cols, dim).astype(x.dtype)
        x = x + at + nn.Dense(dim, kernel_init=zeros, name="map_in")(shown) + at

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
