"""Grids of patches of the first level, as ZoomLDM takes them at every level: a slide has one grid,
and at the level of ratio r a window has r × r of its cells, averaged to 8 × 8 where these are more.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ssldiff_jax.sampler import grid as grid_lib


class Area(NamedTuple):
    """A grid of packed windows, the size of the image that it is of, px, and what its cells
    cover."""

    grid: Float[np.ndarray, "rows cols E"]
    size: tuple[int, int]
    spans: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Finest:
    """What a level makes of them.

    Attributes:
        ratio: cells of the first level along a window; 1 where grids are of windows themselves.
        side: embeddings along a window, after averaging.
        dim: length of an embedding.
        patch_px: side of a cell, and of a window, px of their levels.
    """

    ratio: int
    side: int
    dim: int
    patch_px: int

    def takes(self, grid: Any) -> bool:
        """Whether a grid has an embedding of each cell of the first level, and has to be packed."""
        shape = np.shape(grid)
        return self.ratio > 1 and len(shape) == 3 and shape[-1] == self.dim and 0 not in shape

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Of an image, from that of the first level."""
        return tuple(-(-length // self.ratio) for length in size)

    def spans_of(self, spans: tuple[float, float]) -> tuple[float, float]:
        """The same of what cells cover, which need not be whole px."""
        return tuple(length / self.ratio for length in spans)

    def of_grid(
        self,
        grid: Float[np.ndarray, "rows cols D"],
        size: tuple[int, int] | None,
        spans: tuple[float, float] | None,
    ) -> Area:
        """A grid as windows of the level take it. Where its cells make no whole windows the last
        row and column are repeated, beyond what the image shows."""
        grid = np.asarray(grid, np.float32)
        own = self.spans_of(tuple(n * self.patch_px for n in grid.shape[:2]))
        spans = spans or size or own
        size = size or tuple(math.ceil(length) for length in own)
        more = [-n % self.ratio for n in grid.shape[:2]]
        padded = np.pad(grid, (*((0, n) for n in more), (0, 0)), "edge")
        covered = tuple(
            length * whole / n
            for length, whole, n in zip(spans, padded.shape[:2], grid.shape[:2], strict=True)
        )
        return Area(grid_lib.packed(self._averaged(padded), self.side), size, covered)

    def _averaged(
        self, grid: Float[np.ndarray, "rows cols D"]
    ) -> Float[np.ndarray, "fewer_rows fewer_cols D"]:
        pool = self.ratio // self.side
        rows, cols = (n // pool for n in grid.shape[:2])
        return grid.reshape(rows, pool, cols, pool, -1).mean(axis=(1, 3))
