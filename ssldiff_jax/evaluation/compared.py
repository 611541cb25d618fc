"""Every figure of two sets of features."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments
from ssldiff_jax.evaluation import estimate, fidelity, frechet_interval, kernel
from ssldiff_jax.evaluation import halves as halves_lib

LEAST = 6
"""Features that all figures need, of either kind: more than density has neighbours."""


def figures(
    drawn: Float[np.ndarray, "N D"],
    real: Float[np.ndarray, "M D"],
    reference: moments.Moments | None = None,
    *,
    cases: Sequence[str],
    paired: bool = False,
) -> dict[str, Any]:
    """`frechet`, `kid` and `fidelity` with intervals, or with the reason why they have none; and
    `frechet_real_against_real`, the same distance between halves of the real features, `parted` by
    the `cases` that these are of.

    Features of one slide should lie side by side; `paired` where each was drawn from the real one
    of the same index. With `reference` the Fréchet distance is to
    published moments, which count as known exactly; the rest is to `real`.
    """
    sides = [reference] if reference else frechet_interval.blocks_of(real)
    found = {
        "frechet": frechet_interval.frechet_estimate(
            frechet_interval.blocks_of(drawn), sides, paired=paired and not reference
        ),
        "fidelity": fidelity.compare(drawn, real),
        "kid": kernel.kid(drawn, real, blocks=estimate.BLOCKS, paired=paired),
    }
    told = {name: dataclasses.asdict(figure) for name, figure in found.items()}
    return told | {"frechet_real_against_real": _real_against_real(real, cases)}


def _real_against_real(real: Float[np.ndarray, "M D"], cases: Sequence[str]) -> dict[str, Any]:
    if len(cases) != len(real):
        raise ValueError(f"expected a case for each of {len(real)} vectors, got {len(cases)}")
    parted = halves_lib.Halves.of_cases(cases)
    sides = (frechet_interval.blocks_of(real[half]) for half in (parted.first, parted.second))
    found = frechet_interval.frechet_estimate(*sides)
    return dataclasses.asdict(found) | {"parted": parted.by}
