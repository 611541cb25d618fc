"""How much of a condition is heard: whether images show what was asked for, and not what was asked
of others."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.evaluation.metrics import bootstrap

CHOICES = 10
"""Conditions among which that of an image is looked for."""
RETRIEVAL = "retrieved among 10"
"""Name of that figure beside those of classes."""

Values = Float[np.ndarray, "N P K"]
"""Values of K classes at P places of N images."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """How much of one kind of condition is heard.

    Attributes:
        classes: by name, correlation of requested and shown values over all places of all images.
        retrieval: how often what an image shows is nearest to its own condition among `CHOICES`,
            of which the others are those of other images.
        chance: the retrieval of an image that shows anything.
    """

    classes: Mapping[str, bootstrap.BlockEstimate]
    retrieval: bootstrap.BlockEstimate
    chance: float

    def rows(self) -> dict[str, bootstrap.BlockEstimate]:
        """All figures by name."""
        return {**self.classes, RETRIEVAL: self.retrieval}


def heard(names: Sequence[str], requested: Values, shown: Values) -> Heard:
    """Figures of images; intervals are over these."""
    # Not at the top: a machine that only computes need not have SciPy.
    from ssldiff_jax.evaluation.metrics import structure

    classes = {
        name: bootstrap.estimate(
            structure.products(requested[..., k], shown[..., k]).sum(axis=1),
            structure.pearson,
            "images",
        )
        for k, name in enumerate(names)
    }
    found = retrieval(requested, shown)
    sums = np.stack([found, np.ones_like(found)], axis=1)
    share = bootstrap.estimate(sums, lambda s: structure.ratio(s[:, 0], s[:, 1]), "images")
    return Heard(classes, share, 1 / min(CHOICES, len(requested)))


def retrieval(requested: Values, shown: Values) -> Float[np.ndarray, "N"]:
    """For each image how probable it is that its own condition is the nearest to what it shows,
    among `CHOICES` conditions of which the others are those of random other images.

    Conditions that are equally near are equally probable. Of fewer images all are choices.
    """
    from scipy import stats

    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (shown, requested))
    # Places that are never asked to differ say nothing; others count alike.
    deviation = b.std(axis=0)
    scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0)
    distance = np.square((a[:, None] - b[None]) * scale).sum(axis=-1)
    own = np.diagonal(distance)[:, None]
    # Rounding makes no difference between two that are the same.
    slack = 1e-9 * (1 + own)
    nearer = (distance < own - slack).sum(axis=1)
    equal = (np.abs(distance - own) <= slack).sum(axis=1) - 1
    others = len(requested) - 1
    drawn = min(CHOICES - 1, others)
    return np.array(
        [
            # The own condition is at one of `e + 1` ranks with equal probability; from each it
            # wins where none of those before it is drawn.
            stats.hypergeom.pmf(0, others, np.arange(n, n + e + 1), drawn).mean()
            for n, e in zip(nearer, equal, strict=True)
        ]
    )
