"""How much of a condition is heard: whether images show what was asked for, and not what was asked
of others."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import vectors
from ssldiff_jax.evaluation.metrics import bootstrap

CHOICES = 10
"""Conditions among which that of an image is looked for."""
RETRIEVAL = "retrieved among 10"
"""Name of that figure beside those of classes."""

_NAMED = 12  # classes that have a figure of their own: of thousands of genes the mean is enough

Values = Float[np.ndarray, "N P K"]
"""Values of K classes at P places of N images; of what is requested NaN where nothing is."""


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
        """Figures by name; of many classes the mean correlation."""
        classes = dict(self.classes)
        if len(classes) > _NAMED:
            known = [row.value for row in classes.values() if row.value is not None]
            mean, count = (float(np.mean(known)) if known else None), len(known)
            text = f"none: a mean over {count} of {len(classes)} values"
            classes = {"mean": bootstrap.BlockEstimate(mean, None, None, count, text)}
        return {**classes, RETRIEVAL: self.retrieval}


def heard(names: Sequence[str], requested: Values, shown: Values) -> Heard:
    """Figures of images; intervals are over these."""
    # Not at the top: a machine that only computes need not have SciPy.
    from ssldiff_jax.evaluation.metrics import structure

    classes = {}
    for k, name in enumerate(names):
        known = np.isfinite(requested[..., k]).all(axis=1)
        products = structure.products(requested[known, :, k], shown[known, :, k])
        classes[name] = bootstrap.estimate(products.sum(axis=1), structure.pearson, "images")
    found = retrieval(requested, shown)
    sums = np.stack([found, np.ones_like(found)], axis=1)
    share = bootstrap.estimate(sums, lambda s: structure.ratio(s[:, 0], s[:, 1]), "images")
    return Heard(classes, share, 1 / min(CHOICES, len(requested)))


def retrieval(requested: Values, shown: Values) -> Float[np.ndarray, "N"]:
    """For each image how probable it is that its own condition is the nearest to what it shows,
    among `CHOICES` conditions of which the others are those of random other images.

    Classes count alike, each by its deviation over all places. Conditions that are equally near are
    equally probable. Of fewer images all are choices.
    """
    from scipy import stats

    # Not by place: where a class is all but never asked for, stray pixels would decide.
    deviation = np.nanstd(requested, axis=(0, 1))
    centre = np.nanmean(requested, axis=(0, 1))
    # A class that never differs says nothing.
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
    # What is not requested is the mean.
    a, b = (
        (np.nan_to_num((values - centre) * scale)).reshape(len(values), -1).astype(np.float64)
        for values in (shown, requested)
    )
    distance = vectors.squared_distances(a, b)
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
