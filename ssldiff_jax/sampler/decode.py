"""Decode a canvas tile by tile, blend the overlaps, and give the image row by row of tiles."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel, platform
from ssldiff_jax.core import bands as bands_lib
from ssldiff_jax.sampler import chunks, windows

RowsFn = Callable[[int, int], Float[np.ndarray, "h W C"]]
"""(top, count) → rows of a canvas."""


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Tiles of `tile` latent pixels that overlap by `overlap`, `chunk` of them at a time; 0 is what
    suits the platform.

    `ramp` blends linearly over the overlap and rounds; `paper` weighs every tile by
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
        if self.chunk < 0:
            raise ValueError(f"chunk must be 0 or more, got chunk={self.chunk}")

    @property
    def together(self) -> int:
        """Tiles decoded at a time: on accelerators what keeps them busy, on a CPU what stays in its
        caches."""
        return self.chunk or (4 if platform.target() == "cpu" else 16)


@dataclasses.dataclass(frozen=True)
class TiledDecoder:
    """Canvas → image as it is stored.

    Attributes:
        decode: (params, latents) → images in [−1, 1].
        factor: pixels per latent.
        mesh: devices that share the tiles; None for one.
        kind: of the image.
    """

    decode: Callable[[Any, arrays.Latents], arrays.BandImage]
    factor: int
    config: DecodeConfig
    mesh: Mesh | None = None
    kind: bands_lib.Kind = bands_lib.RGB_8

    def __call__(self, params: Any, canvas: arrays.Canvas) -> tuple[arrays.Pixels, int]:
        """The image, and how many tiles were decoded for it."""
        canvas, size = np.asarray(canvas), tuple(canvas.shape[:2])
        rows = lambda top, count: canvas[top : top + count]
        return np.concatenate(list(self.strips(params, rows, size))), self.num_tiles(size)

    def num_tiles(self, size: tuple[int, int]) -> int:
        """Tiles of a canvas of `size` latent pixels."""
        tops, lefts = self._starts(size)
        return len(tops) * len(lefts)

    def strips(self, params: Any, rows: RowsFn, size: tuple[int, int]) -> Iterator[arrays.Pixels]:
        """The image from top to bottom, a part for each row of tiles. What is held at a time is one
        row of tiles, and one batch of them that is decoded while the last is blended."""
        (tops, lefts), tile, factor = self._starts(size), self._tile(size), self.factor
        weights, height = self._weights(tile), tile * factor
        total = np.zeros((height, size[1] * factor, self.kind.count), np.float32)
        weight = np.zeros((height, size[1] * factor, 1), np.float32)
        images = self._images(params, rows, size)
        for top, following in itertools.pairwise([*tops.tolist(), size[0]]):
            for left, image in zip(lefts, images, strict=False):
                at = np.s_[:, left * factor : left * factor + height]
                total[at] += weights * image
                weight[at] += weights
            done = (following - top) * factor
            yield self._pixels(total[:done] / weight[:done])
            for held in (total, weight):
                held[: height - done] = held[done:].copy()
                held[height - done :] = 0

    def _images(
        self, params: Any, rows: RowsFn, size: tuple[int, int]
    ) -> Iterator[Float[np.ndarray, "h w bands"]]:
        """Tiles row by row, decoded. Batches go over the ends of rows: only the last is filled
        up."""
        (tops, lefts), tile = self._starts(size), self._tile(size)
        strips = (rows(top, tile) for top in tops.tolist())
        latents = (strip[:, x : x + tile] for strip in strips for x in lefts)
        at_once = chunks.fitting(self.config.together, self.num_tiles(size))
        at_once = self._spread.multiple_of(at_once)
        begun: collections.deque[tuple[int, jax.Array]] = collections.deque()
        while batch := list(itertools.islice(latents, at_once)):
            whole = data_parallel.filled(np.stack(batch), at_once)
            begun.append((len(batch), self._spread.start(params, whole)))
            # The next is begun before the last is read: devices do not wait for the host's part.
            if len(begun) > 1:
                yield from _read(*begun.popleft())
        for batch in begun:
            yield from _read(*batch)

    def _pixels(self, image: np.ndarray) -> arrays.Pixels:
        kind = self.kind
        if self.config.blend == "paper":
            values = np.clip((image + 1) / 2, 0, 1) * kind.top
            return np.maximum(values, kind.least).astype(kind.dtype)
        return kind.rounded((image + 1) * (kind.top / 2))

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


def _read(count: int, images: jax.Array) -> Float[np.ndarray, "N h w bands"]:
    return np.asarray(images)[:count]
