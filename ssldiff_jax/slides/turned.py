"""Images that are stored turned or mirrored, upright."""

from typing import Any

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.slides.protocol import Backend

# Orientation of EXIF and TIFF → transposed first, then mirrored up-down, left-right.
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class TurnedBackend:
    """A backend upright by its orientation, 1…8; windows are those of the upright image."""

    def __init__(self, backend: Backend, orientation: int):
        self._backend = backend
        self._is_transposed, self._up_down, self._left_right = _STEPS[orientation]
        order = slice(None, None, -1 if self._is_transposed else 1)
        self.level_shapes = tuple(shape[order] for shape in backend.level_shapes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.Pixels:
        """Return (height, width, bands) level pixels. Raises SlideError for a damaged file."""
        full_height, full_width = self.level_shapes[level]
        top = full_height - top - height if self._up_down else top
        left = full_width - left - width if self._left_right else left
        if self._is_transposed:
            stored = self._backend.read(level, left, top, width, height).swapaxes(0, 1)
        else:
            stored = self._backend.read(level, top, left, height, width)
        rows, columns = (
            slice(None, None, -1 if m else 1) for m in (self._up_down, self._left_right)
        )
        return np.ascontiguousarray(stored[rows, columns])

    def close(self) -> None:
        self._backend.close()
