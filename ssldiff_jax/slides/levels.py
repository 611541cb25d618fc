"""Which of the stored levels show the image: some files mark a picture of the glass as one."""

import itertools
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ssldiff_jax.slides import tiff, warn
from ssldiff_jax.slides.protocol import Backend

_WINDOWS, _WINDOW = 4, 32  # compared a side of the image, and their side, px of the level
_ALIKE = 16  # mean difference of their mean colours, of 255


def agreeing(
    path: pathlib.Path, backend: Backend, *, may_be: Callable[[int], bool] = lambda level: True
) -> list[int]:
    """Numbers of the levels that are level 0 made smaller, finest first; others are reported.

    A level has the shape of level 0 up to rounding, and the colours of the last one that agrees;
    what `may_be` none is not compared.
    """
    numbers = [0]
    for level, shape in enumerate(backend.level_shapes[1:], 1):
        has_shape = tiff.is_level(backend.level_shapes[0], shape)
        if has_shape and may_be(level) and _is_alike(backend, numbers[-1], level):
            numbers.append(level)
        else:
            full = "{} × {} px".format(*backend.level_shapes[0])
            warn.once(
                f"{path}: a page of {shape[0]} × {shape[1]} px is not a level of {full} and is "
                "left out"
            )
    return numbers


def _is_alike(backend: Backend, fine: int, coarse: int) -> bool:
    height, width = (min(n, _WINDOW) for n in backend.level_shapes[coarse])
    tops, lefts = (
        np.unique(np.linspace(0, n - size, _WINDOWS).astype(int)).tolist()
        for n, size in zip(backend.level_shapes[coarse], (height, width), strict=True)
    )
    differences = [
        np.abs(
            _mean(backend, coarse, coarse, *window) - _mean(backend, fine, coarse, *window)
        ).mean()
        for window in itertools.product(tops, lefts, (height,), (width,))
    ]
    return float(np.mean(differences)) < _ALIKE * backend.multiband.top / 255


def _mean(
    backend: Backend, level: int, of: int, top: int, left: int, height: int, width: int
) -> Float[np.ndarray, "bands"]:
    """The mean colour, at one level, of a window of another."""
    y, x = (
        a / b for a, b in zip(backend.level_shapes[level], backend.level_shapes[of], strict=True)
    )
    full_height, full_width = backend.level_shapes[level]
    top, left = min(round(top * y), full_height - 1), min(round(left * x), full_width - 1)
    height = min(max(round(height * y), 1), full_height - top)
    width = min(max(round(width * x), 1), full_width - left)
    return backend.read(level, top, left, height, width).mean(axis=(0, 1))
