"""Intervals of figures that are functions of sums over places, by resampling blocks of places."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.evaluation.metrics import intervals

Figure = Callable[[Float[np.ndarray, "R K"]], Float[np.ndarray, "R"]]
"""Sums over all blocks, of R resamples of them → a figure of each; NaN where sums define none."""

LEAST = 8
"""Blocks: of fewer, resamples are too alike to say how far the figure may be off."""
MANY = 20
"""Images from which on whole images are resampled: blocks of one are not independent."""
_REPEATS = 2000  # an end of the interval then moves by 3 % of its width from seed to seed


@dataclasses.dataclass(frozen=True)
class BlockEstimate:
    """A figure of images, and its interval, which holds it.

    Attributes:
        value: the figure over all blocks; None where it is not defined.
        low: the lower end of the interval; None where there is none.
        high: the upper end; None likewise.
        blocks: how many blocks there are.
        interval: its level and method in words, or why there is none: "too few: …", "none: …".
    """

    value: float | None
    low: float | None
    high: float | None
    blocks: int
    interval: str


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of images that are resampled.

    Attributes:
        lattices: rows and columns of blocks of each image.
        name: what a block is, in the plural.
    """

    lattices: tuple[tuple[int, int], ...]
    name: str

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]], side: int) -> "Blocks":
        """Of images of some heights and widths, with cells of `side` px: whole images where there
        are `MANY`, else squares of about two by two cells, whose neighbours share little."""
        if len(sizes) >= MANY:
            return cls(((1, 1),) * len(sizes), "images")
        of_length = lambda length: max(round(length / side / 2), 1)
        lattices = tuple((of_length(height), of_length(width)) for height, width in sizes)
        return cls(lattices, "blocks of 2 × 2 cells")

    def sums(self, number: int, places: Float[np.ndarray, "h w K"]) -> Float[np.ndarray, "B K"]:
        """Sums over every block of image `number` of what is known of its places, at any
        resolution; where these are fewer than blocks, each counts for several."""
        sums = places
        for axis, blocks in enumerate(self.lattices[number]):
            # Of coarse maps that figures take means of.
            sums = np.repeat(sums, -(-blocks // sums.shape[axis]), axis=axis)
            starts = np.arange(blocks) * sums.shape[axis] // blocks
            sums = np.add.reduceat(sums, starts, axis=axis)
        return sums.reshape(-1, places.shape[-1])


def estimate(sums: Float[np.ndarray, "B K"], figure: Figure, name: str) -> BlockEstimate:
    """The figure of all blocks, whose `name` is in the plural, with its 95 % interval: percentiles
    over resampled blocks, as far apart as Student's t for that many blocks asks (Hesterberg 2015,
    section 5)."""
    # Not at the top: a machine that only computes need not have it.
    from scipy import stats

    count, whole = len(sums), float(figure(sums.sum(axis=0, keepdims=True))[0])
    if not np.isfinite(whole):
        reason = f"{intervals.ALL_SAME}not defined of this data"
        return BlockEstimate(None, None, None, count, reason)
    if count < LEAST:
        reason = f"{intervals.TOO_FEW}{count} {name}, {LEAST} needed"
        return BlockEstimate(whole, None, None, count, reason)
    # One seed: figures of the same blocks have resamples in common, and so have runs.
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _REPEATS)
    resampled = figure(times @ sums)
    # What a class that is rare leaves out of some resamples.
    resampled = resampled[np.isfinite(resampled)]
    quantile = stats.t.ppf((1 + intervals.LEVEL) / 2, count - 1) * np.sqrt(count / (count - 1))
    ends = stats.norm.cdf([-quantile, quantile])
    low, high = np.quantile(resampled, ends) if len(resampled) else (whole, whole)
    text = f"{intervals.LEVEL:.0%}, bootstrap over {count} {name}"
    # Of a figure that is not a mean the resamples may lie beside it.
    return BlockEstimate(whole, min(float(low), whole), max(float(high), whole), count, text)
