"""A figure with what is known of its error."""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure of a sample, and where that of the population lies.

    Attributes:
        value: as others report it.
        low: the lower end of the interval.
        high: the upper end; below `value` where most of that is bias.
        counts: how many vectors, generated and real.
        bias: by how much `value` is expected to exceed the population's, because samples are
            finite; the interval is around value − bias.
        interval: level and method in words.
    """

    value: float
    low: float
    high: float
    counts: tuple[int, int]
    bias: float
    interval: str


@dataclasses.dataclass(frozen=True, eq=False)
class LeftOut:
    """A figure as it is without each block of one sample.

    Attributes:
        values: the figure without block j.
        sizes: how many vectors block j has.
    """

    values: Float[np.ndarray, "G"]
    sizes: Float[np.ndarray, "G"]

    def bias(self, value: float) -> float:
        """What the jackknife for blocks of unequal sizes (Busing et al. 1999) takes off."""
        share = self.sizes / self.sizes.sum()
        return float(np.sum((1 - share) * self.values) - (len(self.values) - 1) * value)

    def variance(self, value: float) -> float:
        """That of the figure, by the same jackknife."""
        per_block = self.sizes.sum() / self.sizes
        pseudo = per_block * value - (per_block - 1) * self.values
        centred = pseudo - (value - self.bias(value))
        return float(np.mean(centred**2 / (per_block - 1)))


def jackknife(
    value: float, counts: tuple[int, int], sides: list[LeftOut], least: float = -np.inf
) -> Estimate:
    """The interval of a figure of two independent samples, t-distributed around value − bias and
    nowhere below `least`.

    A side that is not in `sides` counts as known exactly.
    """
    if not sides or min(len(side.values) for side in sides) < 2:
        raise ValueError("expected at least 2 blocks on a side for an interval, got 1")
    bias = sum(side.bias(value) for side in sides)
    variances = np.array([side.variance(value) for side in sides])
    freedom = np.array([len(side.values) - 1 for side in sides])
    total = max(variances.sum(), np.finfo(np.float64).tiny)
    # Welch and Satterthwaite's degrees of freedom.
    found = 1 / max(np.sum((variances / total) ** 2 / freedom), 1e-12)
    half = stats.t.ppf((1 + LEVEL) / 2, found) * np.sqrt(variances.sum())
    blocks = " and ".join(str(len(side.values)) for side in sides)
    text = f"{LEVEL:.0%}, jackknife of {blocks} blocks"
    low, high = (max(value - bias + side, least) for side in (-half, half))
    return Estimate(float(value), float(low), float(high), counts, float(bias), text)
