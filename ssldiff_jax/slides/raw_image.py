"""Pixels of a large image in a file, as they come from the decoder."""

import dataclasses
import pathlib

import numpy as np

from ssldiff_jax.core import arrays

_BYTES = np.dtype(np.uint8)


@dataclasses.dataclass(frozen=True)
class RawImage:
    """Pixels in a file, row after row, all bands of one after the other, which is read as it is
    needed: RGB, or `num_bands` of uint8 or uint16, in this machine's order of bytes."""

    path: pathlib.Path
    height: int
    width: int
    num_bands: int = 3
    dtype: np.dtype = _BYTES

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.num_bands * self.width * self.dtype.itemsize

    def rows(self, top: int, count: int) -> arrays.Pixels:
        """Some rows of it."""
        count, line = min(count, self.height - top), self.num_bands * self.width
        pixels = np.fromfile(self.path, self.dtype, count * line, offset=top * self.row_bytes)
        return pixels.reshape(count, self.width, self.num_bands)
