"""Embeddings between the cells of a grid."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays

Interpolation: TypeAlias = Literal["slerp", "lerp"]

# Above this |cosine| the arc is as good as a line, and its sine too small to divide by.
_PARALLEL = 0.9995


def lerp(a: Float[arrays.AnyArray, "*B D"], b: Float[arrays.AnyArray, "*B D"], t) -> jax.Array:
    """Along the line from a to b."""
    return a + (b - a) * jnp.asarray(t)[..., None]


def slerp(a: Float[arrays.AnyArray, "*B D"], b: Float[arrays.AnyArray, "*B D"], t) -> jax.Array:
    """Along the arc from a to b; the line where they are (anti)parallel or one is zero.

    Only the angle is normalised, the vectors keep their lengths (Shoemake 1985).
    """
    t = jnp.asarray(t)
    length = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    cosine = jnp.sum(a * b, axis=-1) / jnp.where(length > 0, length, 1.0)
    straight = (jnp.abs(cosine) > _PARALLEL) | (length == 0)
    angle = jnp.arccos(jnp.where(straight, 0.0, cosine))
    along_a = jnp.sin((1 - t) * angle) / jnp.sin(angle)
    along_b = jnp.sin(t * angle) / jnp.sin(angle)
    arc = along_a[..., None] * a + along_b[..., None] * b
    return jnp.where(straight[..., None], lerp(a, b, t), arc)


def interpolate(
    grid: arrays.EmbeddingGrid, points: Float[arrays.AnyArray, "N 2"], method: Interpolation
) -> Float[jax.Array, "N D"]:
    """Embeddings at `points` (row, column) in units of cells; cell (r, c) is centred on
    (r + ½, c + ½). Beyond the outer centres the grid is continued by its edge.

    The published code measures from top left corners of windows and cells, which is the same
    where a window is as large as a cell; it continues the grid to the right and below only.
    """
    grid = jnp.asarray(grid)
    blend = {"slerp": slerp, "lerp": lerp}[method]
    last = jnp.asarray(grid.shape[:2]) - 1
    at = jnp.clip(jnp.asarray(points) - 0.5, 0, last)
    low = jnp.floor(at).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    t = at - low
    upper = blend(grid[low[:, 0], low[:, 1]], grid[low[:, 0], high[:, 1]], t[:, 1])
    lower = blend(grid[high[:, 0], low[:, 1]], grid[high[:, 0], high[:, 1]], t[:, 1])
    return blend(upper, lower, t[:, 0])
