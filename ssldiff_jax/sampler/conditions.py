"""What conditions a window that may stand anywhere between the cells of a grid.

Every class here is a function from the corners of windows, (row, column) in latent pixels of the
canvas, to their conditions; corners may lie beyond the canvas.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import cells
from ssldiff_jax.sampler import grid as grid_lib
from ssldiff_jax.sampler import windows

Corners = Int[np.ndarray, "N 2"]
Conditions = Float[np.ndarray, "N E"]
ConditionFn = Callable[[Corners], Conditions]

EmbedFn = Callable[[UInt[np.ndarray, "N s s bands"]], Float[np.ndarray, "N E"]]
ReadFn = Callable[[int, int, int, int], arrays.Pixels]
"""(top, left, height, width) inside an image → its pixels."""

CACHE_BYTES = 256 << 20
"""Of embeddings that are kept of a reference: 40 000 places at 1536 numbers each."""


@dataclasses.dataclass(frozen=True)
class Lattice:
    """A grid of embeddings spread over a canvas.

    Attributes:
        grid: of the canvas's cells.
        canvas: height and width of what the grid spans, in latent pixels; it may reach beyond what
            is sampled.
        window: side of a window.
        border: beyond the canvas lies its outer row of cells again, or its other side.
        interpolation: between the centres of cells.
        tokens_per_side: a window has as many tokens squared, packed row by row.
        cells: as large as windows, their tokens packed; or as `tokens`, one a cell.
    """

    grid: arrays.EmbeddingGrid
    canvas: tuple[float, float]
    window: int
    border: Literal["margin", "wrap"] = "margin"
    interpolation: grid_lib.Interpolation = "slerp"
    tokens_per_side: int = 1
    cells: Literal["windows", "tokens"] = "windows"

    def interpolated(self, corners: Corners) -> Float[np.ndarray, "N E"]:
        """The embedding at the centre of every window, or the tokens at the centres of its
        squares, between those of the grid."""
        grid, k = np.asarray(self.grid), self.tokens_per_side
        if self.cells == "windows":
            grid = grid_lib.unpacked(grid, k)
        lattice = np.array(grid.shape[:2])
        # (N, k², 2), of one token the window's own centre.
        centres = corners[:, None] + self.window * (0.5 + cells.token_offsets(k))
        points = centres.reshape(-1, 2) / (np.array(self.canvas) / lattice)
        if self.border == "wrap":
            grid, points = np.pad(grid, ((1, 1), (1, 1), (0, 0)), "wrap"), points % lattice + 1
        points = points.astype(np.float32)
        vectors = grid_lib.interpolate(grid, points, self.interpolation)
        return vectors.reshape(len(corners), -1)

    def of_windows(self) -> "Lattice":
        """The same with cells as large as windows."""
        counts = [math.ceil(size / self.window) for size in self.canvas]
        if counts == list(self.grid.shape[:2]):
            return self
        place = np.meshgrid(*(np.arange(n) * self.window for n in counts), indexing="ij")
        corners = np.stack(place, -1).reshape(-1, 2)
        grid = self.interpolated(corners).reshape(*counts, -1)
        return dataclasses.replace(self, grid=grid)


@dataclasses.dataclass(frozen=True)
class InterpolatedCondition:
    """The embedding, or tokens, between the cells of a grid, as if every window were a cell.

    `alone` turns embeddings into conditions, where the denoiser takes more than one.
    """

    lattice: Lattice
    alone: Callable[[np.ndarray], np.ndarray] = np.asarray

    def __call__(self, corners: Corners) -> Conditions:
        return self.alone(self.lattice.interpolated(corners))


@dataclasses.dataclass(frozen=True)
class CellsCondition:
    """The 2×2 cells that a window touches, each with its place: nothing between cells is
    interpolated.

    `finish` adds what else the denoiser takes.
    """

    lattice: Lattice
    finish: Callable[[np.ndarray], np.ndarray] = np.asarray

    def __call__(self, corners: Corners) -> Conditions:
        lattice = self._of_windows
        first = np.floor_divide(corners, lattice.window)
        place = cells.cell_offsets(first - corners / lattice.window)
        at = first[:, None] + np.stack(np.meshgrid([0, 1], [0, 1], indexing="ij"), -1).reshape(4, 2)
        size = np.array(lattice.grid.shape[:2])
        at = at % size if lattice.border == "wrap" else np.clip(at, 0, size - 1)
        return self.finish(cells.pack(np.asarray(lattice.grid)[at[..., 0], at[..., 1]], place))

    @functools.cached_property
    def _of_windows(self) -> Lattice:
        return self.lattice.of_windows()


@dataclasses.dataclass(frozen=True)
class DenseCondition:
    """The reference embedded at the very place of every window, mirrored (or going round) beyond
    its border.

    Attributes:
        read: pixels of the reference.
        size: its height and width, px.
        embed: patches → embeddings, or packed tokens.
        patch_px: side of a window, px.
        factor: px per latent.
        border: of the canvas.
        alone: turns embeddings into conditions, where the denoiser takes more than one.
        cache_bytes: of embeddings that are kept, so that a place which windows return to at every
            step is read and embedded once; 0 where they do not return.
    """

    read: ReadFn
    size: tuple[int, int]
    embed: EmbedFn
    patch_px: int
    factor: int
    border: Literal["margin", "wrap"] = "margin"
    alone: Callable[[np.ndarray], np.ndarray] = np.asarray
    cache_bytes: int = 0

    def __call__(self, corners: Corners) -> Conditions:
        unique, inverse = np.unique(corners, axis=0, return_inverse=True)
        places, cache = list(map(tuple, unique.tolist())), self._cache
        new = [at for at in places if at not in cache]
        embedded = {}
        if new:
            patches = [self._patch(row * self.factor, col * self.factor) for row, col in new]
            embedded = dict(zip(new, self.embed(np.stack(patches)), strict=True))
        embedding = np.stack([cache[at] if at in cache else embedded[at] for at in places])
        for at, vector in embedded.items():
            # The first that come stay. Windows walk round all places: of those that push each
            # other out, none would be there when it is asked for again.
            if (len(cache) + 1) * vector.nbytes <= self.cache_bytes:
                cache[at] = np.array(vector)
        return self.alone(embedding[inverse.reshape(-1)])

    @functools.cached_property
    def _cache(self) -> dict[tuple[int, int], Float[np.ndarray, "E"]]:
        return {}

    def _patch(self, top: int, left: int) -> arrays.Pixels:
        rows, cols = (
            beyond_border(first, self.patch_px, size, self.border)
            for first, size in zip((top, left), self.size, strict=True)
        )
        top, left = int(rows.min()), int(cols.min())
        inside = self.read(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
        return inside[rows - top][:, cols - left]


@dataclasses.dataclass(frozen=True)
class MappedCondition:
    """Conditions of windows with the latents of a map under each behind them, mirrored (or going
    round) beyond its border: what a ControlNet is shown.

    Attributes:
        inner: conditions without it.
        latents_map: as large as the canvas.
        window: side of a window.
        border: of the canvas.
    """

    inner: ConditionFn
    latents_map: arrays.Canvas
    window: int
    border: Literal["margin", "wrap"] = "margin"

    def __call__(self, corners: Corners) -> Conditions:
        return np.concatenate([self.inner(corners), self._maps(corners)], axis=1)

    def _maps(self, corners: Corners) -> Float[np.ndarray, "N M"]:
        rows, cols = (
            [beyond_border(int(first), self.window, size, self.border) for first in along]
            for along, size in zip(corners.T, self.latents_map.shape[:2], strict=True)
        )
        maps = [self.latents_map[r][:, c].ravel() for r, c in zip(rows, cols, strict=True)]
        return np.stack(maps)


def beyond_border(
    first: int, count: int, size: int, border: Literal["margin", "wrap"]
) -> Int[np.ndarray, "n"]:
    """Pixels first … first + count − 1 of a line of `size`, mirrored at its ends or going round."""
    at = np.arange(first, first + count)
    return at % size if border == "wrap" else windows.mirrored(at, size)


def array_reader(pixels: arrays.Pixels) -> ReadFn:
    """`read` of an image in memory."""
    return lambda top, left, height, width: pixels[top : top + height, left : left + width]
