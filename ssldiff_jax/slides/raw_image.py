"""Pixels of a large image in a file, as they come from the decoder."""

import dataclasses
import pathlib

import numpy as np

from ssldiff_jax.core import arrays


@dataclasses.dataclass(frozen=True)
class RawImage:
    """RGB pixels in a file, row after row, which is read as it is needed."""

    path: pathlib.Path
    height: int
    width: int

    def rows(self, top: int, count: int) -> arrays.ImageUint8:
        """Some rows of it."""
        count, line = min(count, self.height - top), 3 * self.width
        pixels = np.fromfile(self.path, np.uint8, count * line, offset=top * line)
        return pixels.reshape(count, self.width, 3)
