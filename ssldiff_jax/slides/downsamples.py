"""How much smaller the stored levels of a slide are than its finest."""

import math

from ssldiff_jax.slides.protocol import Backend

Axes = tuple[float, float]
"""Of rows and of columns."""


def of_levels(backend: Backend) -> list[Axes]:
    """Level-0 pixels of a pixel of each level."""
    full = backend.level_shapes[0]
    if backend.levels_cover_all:
        return [(full[0] / rows, full[1] / cols) for rows, cols in backend.level_shapes]
    return [(_rounded(full, level),) * 2 for level in backend.level_shapes]


def _rounded(full: tuple[int, int], level: tuple[int, int]) -> float:
    """The whole number of level-0 pixels that explains a level's rounded shape, if there is one."""
    ratio = max(full) / max(level)
    # Powers of two first: rounded shapes often allow several factors, and scanners halve.
    for whole in (2 ** round(math.log2(ratio)), round(ratio)):
        if all(abs(f / whole - n) < 1 for f, n in zip(full, level, strict=True)):
            return float(whole)
    return ratio
