"""Every figure of two sets of features."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments
from ssldiff_jax.evaluation import distances, estimate, fidelity, kernel

LEAST = 6
"""Features that all figures need, of either kind: more than density has neighbours."""


def figures(
    drawn: Float[np.ndarray, "N D"],
    real: Float[np.ndarray, "M D"],
    reference: moments.Moments | None = None,
    *,
    paired: bool = False,
) -> dict[str, Any]:
    """`frechet` and `kid` with intervals, `fidelity`, and `frechet_of_real_halves`: what a
    distance of half as many real features is, all of one kind.

    Features of one slide should lie side by side; `paired` where each was drawn from the real one
    of the same index. With `reference` the Fréchet distance is to
    published moments, which count as known exactly; the rest is to `real`.
    """
    sides = [reference] if reference else distances.blocks_of(real)
    found = {
        "frechet": distances.frechet_estimate(
            distances.blocks_of(drawn), sides, paired=paired and not reference
        ),
        "fidelity": fidelity.compare(drawn, real),
        "kid": kernel.kid(drawn, real, blocks=estimate.BLOCKS, paired=paired),
    }
    told = {name: dataclasses.asdict(figure) for name, figure in found.items()}
    return told | {"frechet_of_real_halves": distances.frechet_distance(real[::2], real[1::2])}
