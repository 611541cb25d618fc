"""Embeddings between the cells of a grid, in NumPy: the host makes conditions while devices are at
work, and would wait for them if they were to interpolate."""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays

Interpolation: TypeAlias = Literal["slerp", "lerp"]
Vectors: TypeAlias = Float[arrays.AnyArray, "*B D"]

# Above this |cosine| the arc is as good as a line, and its sine too small to divide by.
_PARALLEL = 0.9995


def lerp(
    a: Float[arrays.AnyArray, "*B D"], b: Float[arrays.AnyArray, "*B D"], t
) -> Float[np.ndarray, "*B D"]:
    """Along the line from a to b."""
    a, b, t = (np.asarray(x, np.float32) for x in (a, b, t))
    return a + (b - a) * t[..., None]


def slerp(
    a: Float[arrays.AnyArray, "*B D"], b: Float[arrays.AnyArray, "*B D"], t
) -> Float[np.ndarray, "*B D"]:
    """Along the arc from a to b; the line where they are (anti)parallel or one is zero.

    Only the angle is normalised, the vectors keep their lengths (Shoemake 1985).
    """
    a, b, t = (np.asarray(x, np.float32) for x in (a, b, t))
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = np.sum(a * b, axis=-1) / np.where(length > 0, length, 1.0)
    straight = (np.abs(cosine) > _PARALLEL) | (length == 0)
    angle = np.arccos(np.where(straight, 0.0, cosine))
    along_a = np.sin((1 - t) * angle) / np.sin(angle)
    along_b = np.sin(t * angle) / np.sin(angle)
    arc = along_a[..., None] * a + along_b[..., None] * b
    return np.where(straight[..., None], lerp(a, b, t), arc)


def unpacked(
    grid: Float[arrays.AnyArray, "rows cols E"], per_side: int
) -> Float[np.ndarray, "fine_rows fine_cols D"]:
    """A grid whose cells have `per_side`² tokens each, packed row by row, as the lattice of all its
    tokens: (rows · per_side, columns · per_side, D)."""
    rows, cols = grid.shape[:2]
    tokens = np.asarray(grid).reshape(rows, cols, per_side, per_side, -1)
    return tokens.swapaxes(1, 2).reshape(rows * per_side, cols * per_side, -1)


def packed(
    fine: Float[np.ndarray, "fine_rows fine_cols D"], per_side: int
) -> Float[np.ndarray, "rows cols E"]:
    """The inverse of `unpacked`."""
    rows, cols = (size // per_side for size in fine.shape[:2])
    tokens = fine.reshape(rows, per_side, cols, per_side, -1)
    return tokens.swapaxes(1, 2).reshape(rows, cols, -1)


def blended(
    a: Float[arrays.AnyArray, "rows cols E"],
    b: Float[arrays.AnyArray, "rows cols E"],
    amount: float,
    num_tokens: int = 1,
) -> Float[np.ndarray, "rows cols E"]:
    """The grid `amount` of the way from a to b by slerp, each of a cell's packed tokens by
    itself."""
    split = lambda grid: np.asarray(grid).reshape(*grid.shape[:2], num_tokens, -1)
    far = np.full((*a.shape[:2], num_tokens), amount)
    return slerp(split(a), split(b), far).reshape(a.shape)


def interpolate(
    grid: arrays.EmbeddingGrid, points: Float[arrays.AnyArray, "N 2"], method: Interpolation
) -> Float[np.ndarray, "N D"]:
    """Embeddings at `points` (row, column) in units of cells; cell (r, c) is centred on
    (r + ½, c + ½). Beyond the outer centres the grid is continued by its edge.

    The published code measures from top left corners of windows and cells, which is the same
    where a window is as large as a cell; it continues the grid to the right and below only.
    """
    grid = np.asarray(grid, np.float32)
    blend = {"slerp": slerp, "lerp": lerp}[method]
    last = np.array(grid.shape[:2]) - 1
    at = np.clip(np.asarray(points, np.float32) - 0.5, 0, last)
    low = np.floor(at).astype(np.int32)
    high, t = np.minimum(low + 1, last), at - low
    upper = blend(grid[low[:, 0], low[:, 1]], grid[low[:, 0], high[:, 1]], t[:, 1])
    lower = blend(grid[high[:, 0], low[:, 1]], grid[high[:, 0], high[:, 1]], t[:, 1])
    return blend(upper, lower, t[:, 0])
