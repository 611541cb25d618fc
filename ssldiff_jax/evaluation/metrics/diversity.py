"""Whether a generator collapses onto its condition: how far apart patches of one embedding are,
over how far apart real patches of one embedding are."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import vectors
from ssldiff_jax.evaluation.metrics import bootstrap, intervals

NEIGHBOURS = 64
"""Real patches of each embedding: the nearest. Of fewer the lines through them are less certain."""
_BLOCKS = 32  # of embeddings that follow each other, which may be of one slide


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Spreads are sums of the variances of features.

    Attributes:
        corrected: spread of generated patches of an embedding over that of real patches,
            extrapolated to where these have that very embedding: 1 is as diverse as reality, 0
            collapse; above 1 they follow their embedding less than real ones do.
        uncorrected: over that of real patches and their neighbours as they are, whose embeddings
            differ: too low.
        nearness: mean squared distance of the embeddings of neighbours over that of all pairs.
        num_embeddings: that patches were generated of.
        num_variations: patches of each.
        num_real: patches among which neighbours are looked for.
    """

    corrected: bootstrap.BlockEstimate
    uncorrected: bootstrap.BlockEstimate
    nearness: float
    num_embeddings: int
    num_variations: int
    num_real: int


@dataclasses.dataclass(frozen=True, eq=False)
class Real:
    """Real patches: their embeddings, by which they are conditioned on, and their features."""

    embedding: Float[np.ndarray, "N E"]
    features: Float[np.ndarray, "N D"]


def compare(generated: Float[np.ndarray, "n K D"], own: Real, others: Real) -> Diversity:
    """Features of K patches of each embedding of the real patches `own`; neighbours of these are
    looked for among `others`, which show none of the same places.

    Half the squared distance of features grows with that of embeddings, along a line that differs
    from embedding to embedding; at distance 0 it is the spread.

    Raises ValueError for fewer than 2 patches of an embedding, and for fewer real ones than
    neighbours need.
    """
    count, num_variations, _ = generated.shape
    if num_variations < 2:
        raise ValueError(f"expected 2 patches or more of an embedding, got {num_variations}")
    if len(others.features) < 2:
        raise ValueError(f"expected 2 real patches or more, got {len(others.features)}")
    spread = generated.astype(np.float64).var(axis=1, ddof=1).sum(axis=-1)
    distance = _squared(own.embedding, others.embedding)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    at = lambda of_pairs: np.take_along_axis(of_pairs, nearest, axis=1)
    x, y = at(distance), at(_squared(own.features, others.features)) / 2
    each = np.stack([spread, y.mean(axis=1), _at_zero(x, y)], axis=1)
    sums = np.array([each[part].sum(axis=0) for part in intervals.blocks_of(count, _BLOCKS)])
    of = lambda figure: bootstrap.estimate(sums, figure, "blocks of embeddings")
    nearness = float(x.mean() / max(distance.mean(), np.finfo(np.float64).tiny))
    return Diversity(
        of(_corrected), of(_uncorrected), nearness, count, num_variations, len(others.features)
    )


def of_condition(
    generated: Float[np.ndarray, "n K D"], real: Float[np.ndarray, "N D"]
) -> float | None:
    """Spread of features of K patches of one condition, over that of all real patches: the part
    that conditions leave open. None where all real ones are alike.

    Raises ValueError for fewer than 2 patches of a condition.
    """
    if generated.shape[1] < 2:
        raise ValueError(f"expected 2 patches or more of a condition, got {generated.shape[1]}")
    of_real = real.astype(np.float64).var(axis=0, ddof=1).sum()
    within = generated.astype(np.float64).var(axis=1, ddof=1).sum(axis=-1).mean()
    return float(within / of_real) if of_real > 0 else None


def _squared(a: Float[np.ndarray, "n F"], b: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "n N"]:
    return vectors.squared_distances(a.astype(np.float64), b.astype(np.float64))


def _at_zero(x: Float[np.ndarray, "n k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """Where each row's line of least squares is at 0."""
    centred = x - x.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=1)
    products = (centred * y).sum(axis=1)
    # Of neighbours that are all as far away there is no slope to see.
    slope = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    return y.mean(axis=1) - slope * x.mean(axis=1)


def _uncorrected(sums: Float[np.ndarray, "R 3"]) -> Float[np.ndarray, "R"]:
    return _over(sums[:, 0], sums[:, 1])


def _corrected(sums: Float[np.ndarray, "R 3"]) -> Float[np.ndarray, "R"]:
    return _over(sums[:, 0], sums[:, 2])


def _over(above: Float[np.ndarray, "R"], below: Float[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
    """NaN where real patches have no spread that is left."""
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
