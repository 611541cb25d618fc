"""Decode a canvas tile by tile, blend the overlaps, and give the image row by row of tiles."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel
from ssldiff_jax.sampler import windows

RowsFn = Callable[[int, int], Float[np.ndarray, "h W C"]]
"""(top, count) → rows of a canvas."""


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Tiles of `tile` latent pixels that overlap by `overlap`, `chunk` of them at a time.

    `ramp` blends linearly over the overlap and rounds to uint8; `paper` weighs every tile by
    exp(−(r/0.8)²), r from its centre with half its side as unit, and truncates.
    """

    tile: int
    overlap: int
    chunk: int
    blend: Literal["ramp", "paper"]

    def __post_init__(self):
        if not 0 <= self.overlap < self.tile:
            raise ValueError(
                f"overlap must lie in [0, tile), got overlap={self.overlap}, tile={self.tile}"
            )


@dataclasses.dataclass(frozen=True)
class TiledDecoder:
    """Canvas → uint8 image.

    Attributes:
        decode: (params, latents) → images in [−1, 1].
        factor: pixels per latent.
        mesh: devices that share the tiles; None for one.
    """

    decode: Callable[[Any, arrays.Latents], arrays.Image]
    factor: int
    config: DecodeConfig
    mesh: Mesh | None = None

    def __call__(self, params: Any, canvas: arrays.Canvas) -> tuple[arrays.ImageUint8, int]:
        """The image, and how many tiles were decoded for it."""
        canvas, size = np.asarray(canvas), tuple(canvas.shape[:2])
        rows = lambda top, count: canvas[top : top + count]
        return np.concatenate(list(self.strips(params, rows, size))), self.num_tiles(size)

    def num_tiles(self, size: tuple[int, int]) -> int:
        """Tiles of a canvas of `size` latent pixels."""
        tops, lefts = self._starts(size)
        return len(tops) * len(lefts)

    def strips(
        self, params: Any, rows: RowsFn, size: tuple[int, int]
    ) -> Iterator[arrays.ImageUint8]:
        """The image from top to bottom, a part for each row of tiles; only one row of tiles is
        held at a time."""
        (tops, lefts), tile, factor = self._starts(size), self._tile(size), self.factor
        weights, height = self._weights(tile), tile * factor
        total = np.zeros((height, size[1] * factor, 3), np.float32)
        weight = np.zeros((height, size[1] * factor, 1), np.float32)
        for top, following in itertools.pairwise([*tops.tolist(), size[0]]):
            latents = rows(top, tile)
            for left, image in self._tiles(params, latents, lefts, tile):
                at = np.s_[:, left * factor : left * factor + height]
                total[at] += weights * image
                weight[at] += weights
            done = (following - top) * factor
            yield self._pixels(total[:done] / weight[:done])
            for held in (total, weight):
                held[: height - done] = held[done:].copy()
                held[height - done :] = 0

    def _tiles(self, params: Any, latents: np.ndarray, lefts: np.ndarray, tile: int):
        """(left, image) of the tiles of a row."""
        at_once = self._spread.multiple_of(self.config.chunk)
        cut = lambda batch: np.stack([latents[:, x : x + tile] for x in batch])
        decode = lambda batch: self._spread(params, cut(batch))
        images = data_parallel.map_batches(decode, (lefts,), at_once)
        yield from zip(lefts, itertools.chain.from_iterable(images), strict=True)

    def _pixels(self, image: np.ndarray) -> arrays.ImageUint8:
        if self.config.blend == "paper":
            return (np.clip((image + 1) / 2, 0, 1) * 255).astype(np.uint8)
        return np.clip(np.round((image + 1) * 127.5), 0, 255).astype(np.uint8)

    def _tile(self, size: tuple[int, int]) -> int:
        return min(self.config.tile, *size)

    def _starts(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        tile = self._tile(size)
        stride = max(tile - self.config.overlap, 1)
        return tuple(windows.covering_starts(length, tile, stride) for length in size)

    @functools.cached_property
    def _spread(self) -> data_parallel.DataParallel:
        return data_parallel.DataParallel(self.decode, self.mesh)

    def _weights(self, tile: int) -> np.ndarray:
        """Weights of a tile's pixels; never zero, so that every pixel has one."""
        if self.config.blend == "paper":
            square = np.linspace(-1, 1, tile * self.factor) ** 2
            radial = np.exp(-(square[:, None] + square) / 0.8**2)
            return (radial / radial.max()).astype(np.float32)[..., None]
        place = np.arange(tile * self.factor) + 0.5
        ramp_px = max(self.config.overlap * self.factor, 1)
        ramp = np.minimum(np.minimum(place, place[::-1]) / ramp_px, 1.0).astype(np.float32)
        return np.outer(ramp, ramp)[..., None]
