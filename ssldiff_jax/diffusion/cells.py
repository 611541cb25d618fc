"""A window between the cells of a grid: the four cells it touches, and which pixels each covers.

An embedding says what a cell looks like, so between cells no embedding is right. A denoiser that
is given the cells around its window, and where they lie, needs none there: every pixel is
conditioned on the cell that it lies in.

Places are centres of cells, (row, column) from the centre of the window, in sides of a window.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays

CELLS_PER_WINDOW = 4
"""A window touches 2×2 cells of its own size; those that it only borders cover none of it."""

Places = Float[arrays.AnyArray, "B M 2"]


def pack(embedding: Float[arrays.AnyArray, "B M D"], place: Places) -> Float[np.ndarray, "B E"]:
    """One vector a window, (B, M·(D + 2)): every cell's embedding and place."""
    return np.concatenate([embedding, place], axis=-1).reshape(len(embedding), -1)


def unpack(
    condition: Float[arrays.AnyArray, "B E"], num_cells: int
) -> tuple[Float[arrays.AnyArray, "B M D"], Places]:
    """The inverse of `pack`."""
    cells = condition.reshape(len(condition), num_cells, -1)
    return cells[..., :-2], cells[..., -2:]


def cell_offsets(corner: Float[np.ndarray, "B 2"]) -> Float[np.ndarray, "B 4 2"]:
    """Places of the 2×2 cells, in reading order, whose first has its top left corner at `corner`
    from the window's, in sides of a window; −1 < corner ≤ 0."""
    steps = np.stack(np.meshgrid([0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 2)
    return (corner[:, None] + steps).astype(np.float32)


def single_cell(embedding: arrays.Embedding) -> Float[np.ndarray, "B E"]:
    """The condition of windows that are cells themselves."""
    count = len(embedding)
    repeated = np.repeat(np.asarray(embedding)[:, None], CELLS_PER_WINDOW, axis=1)
    return pack(repeated, cell_offsets(np.zeros((count, 2))))


def coverage(place: Places, height: int, width: int) -> Float[jax.Array, "B h w M"]:
    """How much of each pixel of a window of `height` × `width` every cell covers; sums to 1.

    Null conditions have all cells in the same place, each of them covers its share.
    """
    rows = _overlap(place[..., 0], height)
    cols = _overlap(place[..., 1], width)
    area = rows[:, :, None] * cols[:, None]
    # A pixel that no cell covers gets 0 of each, not 0/0.
    return area / jnp.maximum(area.sum(axis=-1, keepdims=True), 1e-6)


def coordinates(place: Places, height: int, width: int) -> Float[jax.Array, "B h w 2"]:
    """(row, column) of each pixel in the cell that covers it, −1 … 1 over the cell."""
    area = coverage(place, height, width)
    pixel = jnp.stack(jnp.meshgrid(_centres(height), _centres(width), indexing="ij"), -1)
    # Half a cell is ½ in sides of a window: 2·(pixel − centre) is ±1 at its borders.
    inside = 2 * (pixel[None, :, :, None] - place[:, None, None])
    return jnp.sum(area[..., None] * inside, axis=-2)


def _centres(size: int) -> np.ndarray:
    return ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)


def _overlap(centre: Float[arrays.AnyArray, "B M"], size: int) -> Float[jax.Array, "B s M"]:
    """Length that a pixel shares with a cell along one axis, in pixels."""
    pixel = _centres(size)[None, :, None] * size
    middle = centre[:, None] * size
    # In pixels: both ends of the pixel and of the cell, whose side is the window's.
    low = jnp.maximum(pixel - 0.5, middle - size / 2)
    high = jnp.minimum(pixel + 0.5, middle + size / 2)
    return jnp.maximum(high - low, 0.0)
