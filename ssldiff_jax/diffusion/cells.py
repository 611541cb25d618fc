"""A window between the cells of a grid: the four cells it touches, and which pixels each covers.

An embedding says what a cell looks like, so between cells no embedding is right. A denoiser that
is given the cells around its window, and where they lie, needs none there: every pixel is
conditioned on the cell that it lies in.

Places are centres of cells, (row, column) from the centre of the window, in sides of a window.

A cell may have k × k tokens, each of a square of it. A layout says where the tokens of windows lie:
`CellTokens` where windows touch several cells, `PatchTokens` where each is a cell itself.
"""

import dataclasses
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class Layout(Protocol):
    """Where the tokens of windows lie, M = cells · k² of them."""

    @property
    def place(self) -> Float[arrays.AnyArray, "B_or_1 M 2"]:
        """Their centres."""

    def spread(
        self, values: Float[jax.Array, "B M F"], height: int, width: int
    ) -> Float[jax.Array, "B h w F"]:
        """Each pixel's mean over the tokens that cover it, of values of the tokens."""

    def coordinates(self, height: int, width: int) -> Float[jax.Array, "B h w 2"] | None:
        """See `coordinates`; None where they are the same for all windows."""


@dataclasses.dataclass(frozen=True)
class CellTokens:
    """Tokens of the cells at `cells`, each cell's row by row."""

    cells: Places
    per_side: int

    @property
    def place(self) -> Places:
        """Centres of the cells' squares."""
        if self.per_side == 1:
            return self.cells
        place = self.cells[:, :, None] + token_offsets(self.per_side)
        return place.reshape(len(place), -1, 2)

    def spread(
        self, values: Float[jax.Array, "B M F"], height: int, width: int
    ) -> Float[jax.Array, "B h w F"]:
        """See `Layout`."""
        area = coverage(self.place, height, width, 1 / self.per_side).astype(values.dtype)
        return jnp.einsum("bhwm,bmf->bhwf", area, values)

    def coordinates(self, height: int, width: int) -> Float[jax.Array, "B h w 2"]:
        """In the cell, not in its squares: as without tokens."""
        return coordinates(self.cells, height, width)


@dataclasses.dataclass(frozen=True)
class PatchTokens:
    """Tokens of a patch that is a window itself, row by row."""

    per_side: int

    @property
    def place(self) -> Float[np.ndarray, "1 M 2"]:
        """Centres of the patch's squares."""
        return token_offsets(self.per_side)[None]

    def spread(
        self, values: Float[jax.Array, "B M F"], height: int, width: int
    ) -> Float[jax.Array, "B h w F"]:
        """See `Layout`."""
        count, k = len(values), self.per_side
        grid = values.reshape(count, k, k, -1)
        if height % k == 0 and width % k == 0:
            # A copy that is fused with what it is added to; no product.
            grid = grid[:, :, None, :, None]
            whole = (count, k, height // k, k, width // k, grid.shape[-1])
            return jnp.broadcast_to(grid, whole).reshape(count, height, width, -1)
        rows, cols = (_token_shares(k, size).astype(values.dtype) for size in (height, width))
        return jnp.einsum("hr,wc,brcf->bhwf", rows, cols, grid)

    def coordinates(self, height: int, width: int) -> None:
        """A patch without tokens has none either."""


def token_offsets(per_side: int) -> Float[np.ndarray, "M 2"]:
    """Centres of `per_side`² equal squares of a cell, row by row, from its centre, in its sides."""
    centre = _centres(per_side)
    return np.stack(np.meshgrid(centre, centre, indexing="ij"), -1).reshape(-1, 2)


def _token_shares(per_side: int, size: int) -> Float[np.ndarray, "size k"]:
    """How much of each of `size` pixels along an axis every token of a patch covers."""
    # Both on the finest lattice that divides into pixels and into tokens.
    fine = np.arange(size * per_side)
    shares = np.zeros((size, per_side), np.float32)
    np.add.at(shares, (fine // per_side, fine // size), 1 / per_side)
    return shares


def coverage(
    place: Places, height: int, width: int, side: float = 1.0
) -> Float[jax.Array, "B h w M"]:
    """How much of each pixel of a window of `height` × `width` every cell covers, whose `side` is
    in sides of a window; sums to 1 where cells lie side by side.

    Null conditions have all cells in the same place, each of them covers its share.
    """
    rows = _overlap(place[..., 0], height, side)
    cols = _overlap(place[..., 1], width, side)
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


def _overlap(
    centre: Float[arrays.AnyArray, "B M"], size: int, side: float
) -> Float[jax.Array, "B s M"]:
    """Length that a pixel shares with a cell along one axis, in pixels."""
    pixel = _centres(size)[None, :, None] * size
    middle = centre[:, None] * size
    # In pixels: both ends of the pixel and of the cell.
    low = jnp.maximum(pixel - 0.5, middle - side * size / 2)
    high = jnp.minimum(pixel + 0.5, middle + side * size / 2)
    return jnp.maximum(high - low, 0.0)
