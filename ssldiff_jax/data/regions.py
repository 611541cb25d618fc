"""Candidates for reference regions: those with most tissue, or those whose cells are known."""

import numpy as np

from ssldiff_jax.data import plan
from ssldiff_jax.slides import tissue


def of_most_tissue(
    number: int,
    part: plan.Part,
    mask: tissue.TissueMask,
    config: plan.RegionConfig,
    size: tuple[int, int],
    mpp: float,
) -> list[tuple[float, plan.Square]]:
    """The regions of `size` px with most tissue that do not overlap, and their tissue fraction."""
    height, span = size
    tops, lefts = plan.lattice(part, size, max(height // 16, 1))
    fractions = mask.fractions(tops, lefts, size, mpp)
    # The last key counts first. Equal fractions in reading order: the same places everywhere.
    order, chosen = np.lexsort((lefts, tops, -fractions)), []
    while len(order) and len(chosen) < config.count:
        best = order[0]
        square = plan.Square(number, int(tops[best]), int(lefts[best]), height, span)
        chosen.append((float(fractions[best]), square))
        below = np.abs(tops[order] - tops[best]) >= height
        order = order[below | (np.abs(lefts[order] - lefts[best]) >= span)]
    return chosen


def whole_regions(
    squares: list[plan.Square], size: tuple[int, int], cell_px: int
) -> list[tuple[float, plan.Square]]:
    """Candidates for reference regions of `size` px all of whose cells are among `squares`."""
    height, width = size
    by_corner = {(s.slide, s.top, s.left): s for s in squares}
    steps = [(y, x) for y in range(0, height, cell_px) for x in range(0, width, cell_px)]
    return [
        (1.0, plan.Square(s.slide, s.top, s.left, height, width))
        for s in squares
        if all(plan.near(by_corner, (s.slide, s.top + y, s.left + x)) for y, x in steps)
    ]


def pick_apart(
    candidates: list[tuple[float, plan.Square]], count: int
) -> list[tuple[float, plan.Square]]:
    """The first `count` candidates that do not overlap."""
    chosen: list[tuple[float, plan.Square]] = []
    for value, square in candidates:
        if len(chosen) < count and not any(_overlap(square, other) for _, other in chosen):
            chosen.append((value, square))
    return chosen


def _overlap(a: plan.Square, b: plan.Square) -> bool:
    apart = (
        a.slide != b.slide
        or a.top + a.height <= b.top
        or b.top + b.height <= a.top
        or a.left + a.width <= b.left
        or b.left + b.width <= a.left
    )
    return not apart
