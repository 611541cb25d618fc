"""Whether generated features lie among real ones, and real ones among generated."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ssldiff_jax.evaluation.metrics import intervals, pairwise

_NAMES = ("generated", "real")
LARGEST = pairwise.LARGEST
PER_NEIGHBOUR = 50
"""Vectors of either set for each neighbour that a ball reaches to: it then holds 2 % of its set at
most. Balls that hold much of all vectors say nothing about where these lie."""

_ROUNDING = 32
"""Of a squared distance, in units of the last place of the squared lengths."""


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """Figures of balls around features, each as wide as to its k-th neighbour of the same set.

    Intervals keep the balls as they are, because radii do not stand a resampling: neighbours would
    be missing, or be copies. They are of the features that are looked for in balls, sampled again:
    generated ones in these real balls, or for recall real ones in these generated balls. How much
    another set of balls would change is not in them.

    Attributes:
        precision: the part of generated features in a real one's ball.
        recall: the part of real features in a generated one's ball (Kynkäänniemi et al. 2019).
        density: how many real ones' balls a generated feature is in, over k; 1 is real's own.
        coverage: the part of real features whose ball has a generated one (Naeem et al. 2020); its
            interval is of the mean over as many generated features.
        neighbours: k of precision and recall, and k of density and coverage.
        counts: how many features were compared, generated and real; all four figures change with
            them.
    """

    precision: intervals.Share
    recall: intervals.Share
    density: intervals.Share
    coverage: intervals.Share
    neighbours: tuple[int, int]
    counts: tuple[int, int]


def compare(
    generated: Float[np.ndarray, "N D"],
    real: Float[np.ndarray, "M D"],
    *,
    k_recall: int = 3,
    k_density: int = 5,
    blocks: int = intervals.BLOCKS,
    per_neighbour: int = PER_NEIGHBOUR,
) -> Fidelity:
    """All four figures; a border belongs to its ball. Memory does not grow with N·M.

    Intervals come from contiguous blocks of either set: features of one slide should lie side by
    side. Time grows with N·M, so that of more than `LARGEST` vectors of a set that many are taken,
    evenly; `counts` has how many. A set of fewer than `per_neighbour` vectors for each neighbour is
    too few for a figure, and balls of real vectors that are all the same are none.
    """
    pairwise.require(generated, real, 2, _NAMES)
    # Not the mean over subsets, as of KID: a figure of n vectors is another than of a part of them.
    generated, real = (pairwise.evenly(side, LARGEST) for side in (generated, real))
    if pairwise.is_all_same(real):
        counts = (len(generated), len(real))
        return Fidelity(*[intervals.Share.all_same(counts)] * 4, (k_recall, k_density), counts)
    # Distances have the rounding errors of |a|² + |b|², which are least around the middle.
    origin = real.mean(axis=0)
    generated, real = generated - origin, real - origin
    wide = _radii(real, (k_recall, k_density), "real")
    # Density and coverage have balls of real vectors alone.
    of_generated = _radii(generated, (k_recall,), "generated")[0]
    parts = intervals.blocks_of(len(generated), blocks)
    starts = [part.start for part in parts]
    is_precise, is_recalled = np.zeros(len(generated), bool), np.zeros(len(real), bool)
    inside = np.zeros(len(generated))
    # Kept for each block, so that coverage without a block needs no second pass.
    holds = np.zeros((len(real), len(parts)), bool)  # whether a real ball has any of a block
    # All four figures in one pass over the pairs, none of which stays.
    for part, distance in pairwise.distance_stripes(real, generated):
        is_precise |= (distance <= wide[0][part, None]).any(axis=0)
        is_inside = distance <= wide[1][part, None]
        inside += is_inside.sum(axis=0)
        holds[part] = np.logical_or.reduceat(is_inside, starts, axis=1)
        is_recalled[part] = (distance <= of_generated).any(axis=1)
    counts = (len(generated), len(real))
    inside /= k_density
    density = intervals.LeaveOneBlockOut.of_mean(inside, blocks)
    fidelity = Fidelity(
        _share(is_precise, counts, blocks),
        _share(is_recalled, counts, blocks),
        intervals.mean(float(inside.mean()), counts, density),
        _coverage(holds, parts, counts),
        (k_recall, k_density),
        counts,
    )
    return _without_few(fidelity, per_neighbour)


def _without_few(fidelity: Fidelity, per_neighbour: int) -> Fidelity:
    """The figures that there are vectors enough for."""
    count, few = min(fidelity.counts), {}
    for names, k in zip((("precision", "recall"), ("density", "coverage")), fidelity.neighbours,
                        strict=True):  # fmt: skip
        if count < per_neighbour * k:
            reason = f"{count} vectors, {per_neighbour * k} needed"
            few |= dict.fromkeys(names, intervals.Share.too_few(fidelity.counts, reason))
    return dataclasses.replace(fidelity, **few)


def _share(
    is_counted: Bool[np.ndarray, "N"], counts: tuple[int, int], blocks: int
) -> intervals.Share:
    without = intervals.LeaveOneBlockOut.of_mean(is_counted.astype(np.float64), blocks)
    return intervals.share(float(is_counted.mean()), len(is_counted), counts, without)


def _coverage(
    holds: Bool[np.ndarray, "M G"], parts: list[slice], counts: tuple[int, int]
) -> intervals.Share:
    """The part of balls that hold anything; without a block, those it alone is in are empty."""
    blocks = holds.sum(axis=1)
    value = float(np.mean(blocks > 0))
    lost = holds[blocks == 1].sum(axis=0) / len(holds)
    without = intervals.LeaveOneBlockOut(value - lost, intervals.sizes_of(parts))
    return intervals.share(value, len(holds), counts, without)


def precision(
    points: Float[np.ndarray, "N D"], others: Float[np.ndarray, "M D"], *, k: int = 3
) -> float:
    """The part of `points` in the ball of one of `others`; recall with the two exchanged."""
    pairwise.require(points, others, 1, ("compared", "other"))
    origin = others.mean(axis=0)
    points, others = points - origin, others - origin
    radii = _radii(others, (k,), "other")[0]
    inside = 0
    for _, distance in pairwise.distance_stripes(points, others):
        inside += int((distance <= radii).any(axis=1).sum())
    return inside / len(points)


def _radii(x: Float[np.ndarray, "N D"], ks: tuple[int, ...], name: str) -> list[np.ndarray]:
    """Squared distances of every vector to its k-th neighbour, itself not counted."""
    if not 1 <= min(ks) <= max(ks) < len(x):
        raise ValueError(f"expected more {name} vectors than neighbours, got {len(x)} for k={ks}")
    per_k = [np.empty(len(x), np.result_type(x, np.float32)) for _ in ks]
    for part, distance in pairwise.distance_stripes(x, x):
        # Not its own neighbour. A partition is linear where a sort is not.
        distance[np.arange(len(distance)), np.arange(part.start, part.stop)] = np.inf
        distance.partition([k - 1 for k in ks], axis=1)
        for radii, k in zip(per_k, ks, strict=True):
            radii[part] = distance[:, k - 1]
    # A border belongs to its ball, rounded or not: else copies of one vector would lie outside of
    # each other's balls, and of those that reach just as far.
    room = _ROUNDING * np.finfo(per_k[0].dtype).eps * np.sum(x * x, axis=1)
    return [radii + room for radii in per_k]
