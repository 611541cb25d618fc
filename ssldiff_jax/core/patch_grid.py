"""Images as grids of patches, and back."""

import numpy as np
from jaxtyping import UInt

from ssldiff_jax.core import arrays


def cut_cells(image: arrays.Pixels, side: int, shift: int = 0) -> UInt[np.ndarray, "N s s bands"]:
    """All whole cells in reading order, the lattice moved down and right by `shift` px."""
    image = image[shift:, shift:]
    rows, cols = image.shape[0] // side, image.shape[1] // side
    cells = image[: rows * side, : cols * side].reshape(rows, side, cols, side, image.shape[2])
    return cells.swapaxes(1, 2).reshape(rows * cols, side, side, image.shape[2])


def mosaic(cells: UInt[np.ndarray, "N s s bands"], cols: int) -> arrays.Pixels:
    """Cells in reading order as one image: the inverse of `cut_cells`."""
    n, side, _, bands = cells.shape
    rows = cells.reshape(n // cols, cols, side, side, bands).swapaxes(1, 2)
    return rows.reshape(n // cols * side, cols * side, bands)
