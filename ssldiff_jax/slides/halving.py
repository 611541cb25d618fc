"""All levels of a pyramid in one pass over the rows of its finest, a strip of each at a time."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt, UInt8

from ssldiff_jax.core import arrays

_AT_ONCE = 32  # rows that are made: Pillow holds a copy, in 4 bytes a pixel

RowsFn = Callable[[int, int], arrays.Pixels]
"""Some rows of an image, from one on; fewer at its end."""


def shapes(height: int, width: int, smallest: int) -> list[tuple[int, int]]:
    """Height and width of every level, halved and rounded down until one of `smallest` px a side
    holds all."""
    levels = [(height, width)]
    while max(levels[-1]) > smallest:
        levels.append(tuple(max(side // 2, 1) for side in levels[-1]))
    return levels


class Strips:
    """Strips of all levels: `rows` of each, an even number, the last of a level shorter; `halve`
    makes one of the next level."""

    def __init__(self, levels: list[tuple[int, int]], rows: int, halve: "HalveFn | None" = None):
        self._levels, self._rows, self._halve = levels, rows, halve or rgb_halved
        self._parts: list[list[np.ndarray]] = [[] for _ in levels]
        self._tops = [0] * len(levels)

    def of(self, source: RowsFn) -> Iterator[tuple[int, int, arrays.Pixels]]:
        """Level, first row and pixels of each strip, in the order in which they are known."""
        for top in range(0, self._levels[0][0], self._rows):
            yield from self._push(0, source(top, self._rows))
        for level in range(len(self._levels)):
            if self._parts[level]:
                yield from self._emit(level)

    def _push(self, level: int, part: np.ndarray) -> Iterator[tuple[int, int, arrays.Pixels]]:
        self._parts[level].append(part)
        if sum(map(len, self._parts[level])) >= self._rows:
            yield from self._emit(level)

    def _emit(self, level: int) -> Iterator[tuple[int, int, arrays.Pixels]]:
        parts, self._parts[level] = self._parts[level], []
        strip = parts[0] if len(parts) == 1 else np.concatenate(parts)
        top = self._tops[level]
        yield level, top, strip
        self._tops[level] = top + len(strip)
        if level + 1 < len(self._levels):
            half = self._halve(strip, self._levels[level])
            if len(half):
                yield from self._push(level + 1, half)


def rgb_halved(
    strip: UInt8[np.ndarray, "H W 3"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Means of 2 × 2 px, rounded; a side of one pixel stays. `shape` is of the whole level."""
    # Not at the top: a machine that only computes need not have it.
    from PIL import Image

    height, width = strip.shape[:2]
    rows, columns = (1 if side == 1 else 2 for side in shape)
    half = np.empty((height // rows, width // columns, 3), np.uint8)
    for top in range(0, len(half) if half.size else 0, _AT_ONCE):
        part = strip[top * rows : min(top + _AT_ONCE, len(half)) * rows, : half.shape[1] * columns]
        image = Image.fromarray(np.ascontiguousarray(part))
        half[top : top + _AT_ONCE] = image.reduce((columns, rows))
    return half


def bands_halved(
    strip: UInt[np.ndarray, "H W bands"], shape: tuple[int, int]
) -> UInt[np.ndarray, "h w bands"]:
    """The same of any bands, of pixels that have data alone: not 0 in all bands."""
    rows, columns = (1 if side == 1 else 2 for side in shape)
    height, width, count = strip.shape[0] // rows, strip.shape[1] // columns, strip.shape[2]
    half = np.empty((height, width, count), strip.dtype)
    for top in range(0, height, _AT_ONCE):
        bottom = min(top + _AT_ONCE, height)
        part = strip[top * rows : bottom * rows, : width * columns]
        part = part.reshape(bottom - top, rows, width, columns, count)
        # Four of 16 bits, twice, are 19 bits.
        sums = part.sum(axis=(1, 3), dtype=np.uint32)
        present = part.any(axis=-1).sum(axis=(1, 3), dtype=np.uint32)[..., None]
        half[top:bottom] = (2 * sums + present) // np.maximum(2 * present, 1)
    return half


HalveFn = Callable[[arrays.Pixels, tuple[int, int]], arrays.Pixels]
"""A strip, and the height and width of its whole level, to half of it."""
