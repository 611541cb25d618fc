"""A figure with what is known of its error."""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
BLOCKS = 20
"""That intervals leave out one by one: Student's t is 5 % wider than with any number."""
TOO_FEW = "too few: "
"""How a reason begins where vectors are too few for an interval."""
ALL_SAME = "none: "
"""How it begins where vectors do not differ."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A distance of two samples, and where that of the populations lies.

    Attributes:
        corrected: the distance less the bias that samples give it for being finite; the interval
            is around it. None where there are too few vectors to estimate the bias.
        low: the lower end of the interval, at most `corrected`; None likewise.
        high: the upper end, at least `corrected`; None likewise.
        uncorrected: the distance of these very samples, as others report it; None where a side is
            one vector or none differ.
        counts: how many vectors, generated and real.
        interval: its level and method in words, or why there is none: "too few: …", "none: …".
    """

    corrected: float | None
    low: float | None
    high: float | None
    uncorrected: float | None
    counts: tuple[int, int]
    interval: str

    @classmethod
    def too_few(cls, uncorrected: float | None, counts: tuple[int, int], reason: str) -> "Estimate":
        """A distance of samples that are too few for an interval: `reason` says how many there
        are."""
        distance = None if uncorrected is None else float(uncorrected)
        return cls(None, None, None, distance, counts, f"{TOO_FEW}{reason}")

    @classmethod
    def all_same(cls, counts: tuple[int, int]) -> "Estimate":
        """No distance, of vectors of which none differs from another on its side."""
        reason = f"all {counts[0]} vectors are the same, and all {counts[1]} of the other side"
        return cls(None, None, None, None, counts, f"{ALL_SAME}{reason}")


@dataclasses.dataclass(frozen=True)
class Share:
    """A part of vectors, or a mean over vectors, and its interval, which holds it.

    Attributes:
        value: the part; None where vectors are too few for it to mean anything.
        low: the lower end of the interval; None likewise.
        high: the upper end; None likewise.
        counts: how many vectors, generated and real.
        interval: its level and method in words, or why there is none: "too few: …", "none: …".
    """

    value: float | None
    low: float | None
    high: float | None
    counts: tuple[int, int]
    interval: str

    @classmethod
    def too_few(cls, counts: tuple[int, int], reason: str) -> "Share":
        """No figure; `reason` says how many vectors there are."""
        return cls(None, None, None, counts, f"{TOO_FEW}{reason}")

    @classmethod
    def all_same(cls, counts: tuple[int, int]) -> "Share":
        """No figure, of real vectors of which none differs from another."""
        return cls(None, None, None, counts, f"{ALL_SAME}all {counts[1]} real vectors are the same")


@dataclasses.dataclass(frozen=True, eq=False)
class LeaveOneBlockOut:
    """A figure as it is without each block of one sample.

    Attributes:
        values: the figure without block j.
        sizes: how many vectors block j has.
    """

    values: Float[np.ndarray, "G"]
    sizes: Float[np.ndarray, "G"]

    @classmethod
    def of_mean(cls, values: Float[np.ndarray, "N"], blocks: int = BLOCKS) -> "LeaveOneBlockOut":
        """The mean of one number a vector, without each of some contiguous blocks."""
        parts = blocks_of(len(values), blocks)
        sizes, sums = sizes_of(parts), np.array([values[part].sum() for part in parts])
        # One block left out leaves nothing.
        if len(parts) < 2:
            raise ValueError("expected at least 2 blocks to leave one out, got 1")
        return cls((values.sum() - sums) / (len(values) - sizes), sizes)

    def bias(self, value: float) -> float:
        """What the jackknife for blocks of unequal sizes (Busing et al. 1999) takes off."""
        weight = self.sizes / self.sizes.sum()
        return float(np.sum((1 - weight) * self.values) - (len(self.values) - 1) * value)

    def variance(self, value: float) -> float:
        """That of the figure, by the same jackknife."""
        per_block = self.sizes.sum() / self.sizes
        # h·θ − (h − 1)·θ₋ⱼ with h = N / nⱼ, in the paper's letters.
        pseudo = per_block * value - (per_block - 1) * self.values
        centred = pseudo - (value - self.bias(value))
        return float(np.mean(centred**2 / (per_block - 1)))


def blocks_of(count: int, blocks: int = BLOCKS) -> list[slice]:
    """Contiguous blocks of 0 … count − 1, no more than `count`, their sizes apart by 1 at most.

    Features of one slide should lie side by side: they leave the sample together, so that an
    interval knows that they are alike.
    """
    if count < 1:
        raise ValueError("expected features to make blocks of, got none")
    if blocks < 1:
        raise ValueError(f"expected at least 1 block, got blocks={blocks}")
    number = min(blocks, count)
    edges = [i * count // number for i in range(number + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def sizes_of(parts: list[slice]) -> Float[np.ndarray, "G"]:
    """How many vectors each block has."""
    return np.array([float(part.stop - part.start) for part in parts])


def jackknife(
    value: float,
    counts: tuple[int, int],
    sides: list[LeaveOneBlockOut],
    *,
    least: float = -np.inf,
    further: float = 0.0,
    of: str = "blocks",
) -> Estimate:
    """The interval of a distance of two independent samples, t-distributed around value − bias, or
    around `least` where that is below it, and nowhere below `least`.

    A side that is not in `sides` counts as known exactly; `of` names what is left out. `further` is
    what a correction of higher order adds to value − bias: either may be the better one, so the
    interval has both in it with the same room, and is around their middle.
    """
    # Not at the top: a machine that only computes need not have it.
    from scipy import stats

    if not sides or min(len(side.values) for side in sides) < 2:
        raise ValueError("expected at least 2 blocks on a side for an interval, got 1")
    bias = sum(side.bias(value) for side in sides)
    variances = np.array([side.variance(value) for side in sides])
    freedom = np.array([len(side.values) - 1 for side in sides])
    # Figures that no block changes have variance 0, and an interval of width 0.
    total = max(variances.sum(), np.finfo(np.float64).tiny)
    # Welch and Satterthwaite's degrees of freedom.
    # Of variances that are all 0 the degrees have no limit: the floor makes t the normal's.
    degrees = 1 / max(np.sum((variances / total) ** 2 / freedom), 1e-12)
    half = stats.t.ppf((1 + LEVEL) / 2, degrees) * np.sqrt(variances.sum()) + abs(further) / 2
    blocks = " and ".join(str(len(side.values)) for side in sides)
    text = f"{LEVEL:.0%}, jackknife of {blocks} {of}"
    # No distance is below 0, though its estimate less the bias may be.
    centre = max(value - bias + further / 2, least)
    low, high = max(centre - half, least), centre + half
    return Estimate(float(centre), float(low), float(high), float(value), counts, text)


def mean(value: float, counts: tuple[int, int], side: LeaveOneBlockOut) -> Share:
    """The interval of a mean of one number a vector, 0 or more: it has no bias to take off."""
    estimate = jackknife(value, counts, [side], least=0)
    # Of values that are all the same an end is the mean itself, beyond rounding.
    low, high = min(estimate.low, float(value)), max(estimate.high, float(value))
    return Share(float(value), low, high, counts, estimate.interval)


def share(value: float, total: int, counts: tuple[int, int], side: LeaveOneBlockOut) -> Share:
    """The part of `total` that is counted, by Wilson's interval (1927), which has a width at 0
    and 1 too.

    As many as would vary alone like blocks do stand for `total`, that at most (Korn and Graubard
    1998). Bias of finite samples stays: the interval is of samples of these sizes.
    """
    from scipy import stats

    variance, alone = side.variance(value), value * (1 - value)
    worth = min(total, alone / variance) if min(variance, alone) > 0 else total
    # Student's quantile where Wilson has the normal one: the variance is known from few blocks.
    square = stats.t.ppf((1 + LEVEL) / 2, len(side.values) - 1) ** 2 / worth
    centre = (value + square / 2) / (1 + square)
    half = np.sqrt(square * (alone + square / 4)) / (1 + square)
    # At 0 and 1 an end is the value itself, beyond rounding.
    low, high = max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0)
    text = f"{LEVEL:.0%}, Wilson with the variance of {len(side.values)} blocks left out"
    return Share(value, float(low), float(high), counts, text)
