"""Images as grids of patches, and back."""

import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.core import arrays


def cut_cells(image: arrays.ImageUint8, side: int, shift: int = 0) -> UInt8[np.ndarray, "N s s 3"]:
    """All whole cells in reading order, the lattice moved down and right by `shift` px."""
    image = image[shift:, shift:]
    rows, cols = image.shape[0] // side, image.shape[1] // side
    cells = image[: rows * side, : cols * side].reshape(rows, side, cols, side, 3)
    return cells.swapaxes(1, 2).reshape(-1, side, side, 3)


def mosaic(cells: UInt8[np.ndarray, "N s s 3"], cols: int) -> arrays.ImageUint8:
    """Cells in reading order as one image: the inverse of `cut_cells`."""
    n, side = len(cells), cells.shape[1]
    rows = cells.reshape(n // cols, cols, side, side, 3).swapaxes(1, 2)
    return rows.reshape(n // cols * side, cols * side, 3)
