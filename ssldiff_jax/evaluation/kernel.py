"""Kernel distance between sets of features (KID, Bińkowski et al. 2018)."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssldiff_jax.evaluation import estimate, stripes

_NAMES = ("generated", "real")


@dataclasses.dataclass(frozen=True)
class SubsetDistance:
    """The kernel distance as torch-fidelity reports it.

    Attributes:
        mean: of the subsets' distances.
        std: of the subsets' distances; of one subset, not of `mean`.
        subsets: how many.
        size: how many features of either side a subset has.
        counts: how many features there are, generated and real.
    """

    mean: float
    std: float
    subsets: int
    size: int
    counts: tuple[int, int]


def kid(generated: Float[np.ndarray, "N D"], real: Float[np.ndarray, "M D"]) -> estimate.Estimate:
    """Squared maximum mean discrepancy under (xᵀy/D + 1)³: the unbiased U-statistic of all pairs,
    negative at times.

    The interval is of the jackknife that leaves out each feature once, exact from the kernel's row
    sums; it takes features as independent. At least 3 features on each side.
    """
    stripes.require(generated, real, 3, _NAMES)
    counts = len(generated), len(real)
    of_generated, of_real = _sums(generated), _sums(real)
    across = _cross_sums(generated, real)
    within = [_mean_of_pairs(of_generated), _mean_of_pairs(of_real)]
    value = sum(within) - 2 * across[0].sum() / (counts[0] * counts[1])
    sides = [
        _left_out(of_generated, across[0], within[1], counts[1]),
        _left_out(of_real, across[1], within[0], counts[0]),
    ]
    return estimate.jackknife(float(value), counts, sides)


def kid_of_subsets(
    generated: Float[np.ndarray, "N D"],
    real: Float[np.ndarray, "M D"],
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> SubsetDistance:
    """`kid`'s figure over random subsets of equal size, torch-fidelity's protocol."""
    stripes.require(generated, real, 2, _NAMES)
    smaller = min(len(generated), len(real))
    if not 2 <= size <= smaller:
        raise ValueError(f"expected subsets of 2 to {smaller} features, got size={size}")
    generator = np.random.default_rng(seed)
    draw = lambda features: features[generator.choice(len(features), size, replace=False)]
    found = [_distance(draw(generated), draw(real)) for _ in range(subsets)]
    counts = (len(generated), len(real))
    return SubsetDistance(float(np.mean(found)), float(np.std(found)), subsets, size, counts)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    across = _cross_sums(a, b)[0].sum() / (len(a) * len(b))
    return float(_mean_of_pairs(_sums(a)) + _mean_of_pairs(_sums(b)) - 2 * across)


def _mean_of_pairs(sums: Float[np.ndarray, "N"]) -> float:
    return float(sums.sum() / (len(sums) * (len(sums) - 1)))


def _left_out(
    own: Float[np.ndarray, "N"], across: Float[np.ndarray, "N"], other: float, others: int
) -> estimate.LeftOut:
    """The distance without each feature of one side.

    Args:
        own: the kernel's sums with this side's other features.
        across: its sums with the other side's features.
        other: its mean over pairs of the other side.
        others: how many features that has.
    """
    n = len(own)
    within = (own.sum() - 2 * own) / ((n - 1) * (n - 2))
    values = within + other - 2 * (across.sum() - across) / ((n - 1) * others)
    return estimate.LeftOut(values, np.ones(n))


def _sums(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N"]:
    """Sums of the kernel's rows without the diagonal; each pair is computed once."""
    found = np.zeros(len(x))
    for part in stripes.rows(len(x), len(x)):
        values = _kernel(x[part], x[part.start :])
        size = part.stop - part.start
        np.fill_diagonal(values, 0)
        found[part] += values.sum(axis=1)
        found[part.stop :] += values[:, size:].sum(axis=0)
    return found


def _cross_sums(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "M"]]:
    """Sums of the kernel's rows and columns."""
    of_a, of_b = np.zeros(len(a)), np.zeros(len(b))
    for part in stripes.rows(len(a), len(b)):
        values = _kernel(a[part], b)
        of_a[part] = values.sum(axis=1)
        of_b += values.sum(axis=0)
    return of_a, of_b


def _kernel(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "N M"]:
    """Products in the features' precision, float32 or better, the rest in float64: the distance
    is a small difference of large sums."""
    dtype = np.result_type(a, b, np.float32)
    base = (a.astype(dtype, copy=False) @ b.astype(dtype, copy=False).T).astype(np.float64)
    base /= a.shape[1]
    base += 1
    cube = base * base
    cube *= base
    return cube
