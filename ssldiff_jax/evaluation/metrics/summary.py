"""Every figure of two sets of features."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments
from ssldiff_jax.evaluation.metrics import frechet_interval, intervals, kid, precision_recall
from ssldiff_jax.evaluation.metrics import halves as halves_lib

LEAST = 6
"""Features that all figures need, of either kind: more than density has neighbours."""


# With half of 120 vectors copies, 95 % intervals held the truth in 15 % of 60 simulations.
_MOST_REPEATED = 0.05
_MOST_COPIES = 5  # of one image, where blocks are smaller


def figures(
    generated: Float[np.ndarray, "N D"],
    real: Float[np.ndarray, "M D"],
    reference: moments.Moments | None = None,
    *,
    cases: Sequence[str],
    paired: bool = False,
) -> dict[str, Any]:
    """`frechet`, `kid` and `precision_recall` with intervals, or with the reason why they have
    none; and `frechet_of_real_halves`, the same distance between halves of the real features,
    `split_by`: the `cases` that these are of.

    Features of one slide should lie side by side; `paired` where each was generated from the real
    one of the same index. With `reference` the Fréchet distance is to
    published moments, which count as known exactly; the rest is to `real`.

    Distances have no interval where vectors are copies of others (`repeated`). Where `cases`, how
    many there are, is below `intervals.BLOCKS`, intervals are of these cases and not of others: of
    two or five each block is a part of one, and what differs from case to case is not in them.
    """
    of_generated, of_real = repeated(generated), repeated(real)
    # One block alone is one that is known exactly.
    sides = [reference] if reference else frechet_interval.blocks_of(real)
    metrics = {
        "frechet": _unless(
            of_generated or (None if reference else of_real),
            frechet_interval.frechet_estimate(
                frechet_interval.blocks_of(generated), sides, paired=paired and not reference
            ),
        ),
        "precision_recall": precision_recall.compare(generated, real),
        "kid": _unless(
            of_generated or of_real,
            kid.kid(generated, real, blocks=intervals.BLOCKS, paired=paired),
        ),
    }
    results = {name: dataclasses.asdict(figure) for name, figure in metrics.items()}
    apart = _real_against_real(real, cases, of_real)
    return results | {"frechet_of_real_halves": apart, "cases": len(set(cases))}


def repeated(features: Float[np.ndarray, "N D"]) -> str | None:
    """Why features give no interval where more than a twentieth are copies of others; else None.

    N of which half are copies have the information of N/2, which blocks do not see where a copy is
    far from what it is of: the bias that they take off is half of what there is. A value that more
    have than a block holds is no copy but one of the population's: blank images.
    """
    count = len(features)
    # By bytes: copies of an image have the same vector.
    classes = collections.Counter(row.tobytes() for row in np.ascontiguousarray(features))
    most = max(count // intervals.BLOCKS, _MOST_COPIES)
    copies = sum(size - 1 for size in classes.values() if size <= most)
    if copies <= _MOST_REPEATED * count:
        return None
    return f"{count} vectors, {copies} of them copies of others"


def _unless(reason: str | None, estimate: intervals.Estimate) -> intervals.Estimate:
    """An estimate without its interval where there is a reason."""
    if reason is None or estimate.corrected is None:
        return estimate
    return intervals.Estimate.too_few(estimate.uncorrected, estimate.counts, reason)


def _real_against_real(
    real: Float[np.ndarray, "M D"], cases: Sequence[str], reason: str | None
) -> dict[str, Any]:
    if len(cases) != len(real):
        raise ValueError(f"expected a case for each of {len(real)} vectors, got {len(cases)}")
    parted = halves_lib.Halves.of_cases(cases)
    sides = (frechet_interval.blocks_of(real[half]) for half in (parted.first, parted.second))
    estimate = _unless(reason, frechet_interval.frechet_estimate(*sides))
    return dataclasses.asdict(estimate) | {"split_by": parted.by}
