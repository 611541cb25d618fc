"""The level of a window, one of the magnifications that a denoiser knows, beside its timestep."""

import flax.linen as nn
import jax
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays


class LevelEmbedding(nn.Module):
    """The number of a level, from 1 → what is added to the embedding of the timestep; nothing of 0,
    and nothing in the beginning, so that a denoiser of one level goes on as it was."""

    num_levels: int
    width: int

    @nn.compact
    def __call__(self, level: Int[arrays.AnyArray, "B"]) -> Float[jax.Array, "B D"]:
        zeros = nn.initializers.zeros_init()
        table = self.param("table", zeros, (self.num_levels, self.width))
        return jax.nn.one_hot(level - 1, self.num_levels, dtype=table.dtype) @ table
