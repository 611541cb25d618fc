"""Two halves of real vectors that share nothing: what real data is apart from real data."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """Indices of either half, in order, and in words how they were parted."""

    first: Int[np.ndarray, "A"]
    second: Int[np.ndarray, "B"]
    by: str

    @classmethod
    def of_cases(cls, cases: Sequence[str]) -> "Halves":
        """Halves of vectors of which these are the cases, those of one side by side in the order
        in which they lie there: whole cases on either side, the largest first and each to the side
        that has fewer vectors.

        Vectors of one case are alike, so that every second one would be no sample of its own. One
        case alone is parted into the first and the second half of its area; so are vectors that
        are a case each, since neighbours in their order may well be alike.
        """
        if len(cases) < 2:
            raise ValueError(f"expected at least 2 vectors to halve, got {len(cases)}")
        sizes = collections.Counter(cases)
        # In order, not every second one: neighbours share what they show.
        if len(sizes) in (1, len(cases)):
            half = len(cases) // 2
            is_one = len(sizes) == 1
            by = "by area: halves of one case" if is_one else "by order: no cases are known"
            return cls(np.arange(half), np.arange(half, len(cases)), by)
        sides: tuple[set[str], set[str]] = (set(), set())
        counts = [0, 0]
        # The largest first, each to the smaller side.
        for case, size in sizes.most_common():
            side = counts.index(min(counts))
            sides[side].add(case)
            counts[side] += size
        is_first = np.array([case in sides[0] for case in cases])
        by = f"by case: {len(sides[0])} and {len(sides[1])} cases"
        return cls(np.flatnonzero(is_first), np.flatnonzero(~is_first), by)
