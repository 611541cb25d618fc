"""Whether generated images are copies of training images."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from ssldiff_jax.core import moments, vectors
from ssldiff_jax.evaluation.metrics import pairwise

_BLOCK = 8192  # training features that are read at a time
_SAME = 1e-6  # cosine distance of features that differ by rounding


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest training feature of each one.

    Attributes:
        distance: the cosine distance 1 − cos to it, 0 … 2.
        index: which it is.
    """

    distance: Float[np.ndarray, "N"]
    index: Int[np.ndarray, "N"]


@dataclasses.dataclass(frozen=True)
class Copy:
    """A generated feature and the training feature it is nearest to, by their indices."""

    generated: int
    training: int
    distance: float


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """How many generated features are nearer to training than held-out real ones are.

    Attributes:
        threshold: cosine distance below which a feature counts as a copy: that of
            the held-out feature which only the part `quantile` of them are as near as.
        fraction: the part of generated features below it; None where held-out features are
            training features too, so that nothing can be nearer.
        low: lower end of the fraction's 95 % interval (Wilson 1927), the threshold as given;
            None likewise.
        high: upper end; None likewise.
        expected: the fraction of a generator that is no nearer to training than held-out images.
        p_value: how often such a generator's fraction would be this high or higher; it knows that
            both sets are samples, and takes features as independent. None likewise.
        power: the chance that the training image which a copy is of was searched: a generator that
            copies everything is found to copy about this part. Of training on crops that are
            turned or lie elsewhere than those searched it is the most that can be found.
        worst: the nearest pairs, nearest first.
        counts: generated, held-out, training.
        interval: its level and method in words, or why there is none: "none: …".
    """

    threshold: float
    fraction: float | None
    low: float | None
    high: float | None
    expected: float
    p_value: float | None
    power: float
    worst: tuple[Copy, ...]
    counts: tuple[int, int, int]
    interval: str


def compare(
    generated: Float[np.ndarray, "N D"],
    held_out: Float[np.ndarray, "M D"],
    training: Float[np.ndarray, "T D"],
    *,
    power: float = 1.0,
    quantile: float = 0.01,
    num_worst: int = 16,
) -> Memorisation:
    """Count copies, by a threshold that held-out real features of the same encoder set.

    Args:
        generated: features of generated images.
        held_out: of real images, of other slides than training.
        training: of training images; it may be a memory map, which is read in blocks.
        power: which part of all training images these are.
        quantile: of held-out features, the part that counts as copies; at least 1 / (M + 1).
        num_worst: how many pairs to name.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"expected a quantile between 0 and 1, got quantile={quantile}")
    if not 0 < power <= 1:
        raise ValueError(f"expected a part of all training images, 0…1, got power={power}")
    # Together: training may be a memory map of many GB, and is read once.
    both = nearest(np.concatenate([generated, held_out]), training)
    distance, of_real = np.split(both.distance, [len(generated)])
    if min(len(distance), len(of_real)) < 1:
        sizes = f"{len(distance)} generated and {len(of_real)} held-out"
        raise ValueError(f"expected generated and held-out features, got {sizes}")
    # A rank, not an interpolated quantile: how many fall below the rank-th has a known law.
    rank = max(1, int(quantile * (len(of_real) + 1)))
    threshold = float(np.sort(of_real)[rank - 1])
    worst = np.argsort(distance, kind="stable")[:num_worst]
    uncounted = Memorisation(
        threshold,
        # Fraction and interval are put in below, where held-out features can be compared with.
        *(None, None, None),
        rank / (len(of_real) + 1),
        None,
        power,
        tuple(Copy(int(i), int(both.index[i]), float(distance[i])) for i in worst),
        (len(distance), len(of_real), len(training)),
        f"none: {int((of_real < _SAME).sum())} of {len(of_real)} held-out features are training "
        "features too, nothing can be nearer",
    )
    # A threshold of 0 would find no copies in a generator that copied everything.
    return uncounted if threshold < _SAME else _counted(uncounted, distance, rank)


def _counted(
    memorisation: Memorisation, distance: Float[np.ndarray, "N"], rank: int
) -> Memorisation:
    """With the part of generated features that are nearer than its threshold, the distance of the
    `rank`-th held-out feature."""
    count, held_out, _ = memorisation.counts
    below = int((distance < memorisation.threshold).sum())
    interval = stats.binomtest(below, count).proportion_ci(0.95, "wilson")
    # As many as are below the rank-th of M, all N + M alike: negative hypergeometric.
    chance = stats.betabinom(count, rank, held_out + 1 - rank).sf(below - 1)
    # At 0 and 1 an end is the fraction itself, beyond rounding.
    fraction = below / count
    return dataclasses.replace(
        memorisation,
        fraction=fraction,
        low=min(float(interval.low), fraction),
        high=max(float(interval.high), fraction),
        p_value=float(chance),
        interval="95%, Wilson",
    )


def nearest(features: Float[np.ndarray, "N D"], training: Float[np.ndarray, "T D"]) -> Nearest:
    """The nearest of `training` by cosine, which is read once and in blocks."""
    pairwise.require(features, training[:1], 1, ("compared", "training"))
    # float16 is widened; float64 for all would take twice the time and memory.
    dtype = np.result_type(features, training, np.float32)
    unit = vectors.unit(features.astype(dtype, copy=False))
    best, index = np.full(len(unit), -np.inf), np.zeros(len(unit), np.int64)
    for start in range(0, len(training), _BLOCK):
        block = np.asarray(training[start : start + _BLOCK])
        moments.require_finite(block, f"training vectors from {start} on")
        others = vectors.unit(block.astype(dtype, copy=False))
        for part in pairwise.rows(len(unit), len(others)):
            cosine = unit[part] @ others.T
            closest = cosine.argmax(axis=1)
            value = np.take_along_axis(cosine, closest[:, None], axis=1)[:, 0]
            # The first of equals stays, so that the answer does not change with the size of blocks.
            is_nearer = value > best[part]
            best[part] = np.where(is_nearer, value, best[part])
            index[part] = np.where(is_nearer, start + closest, index[part])
    return Nearest(_distances(features, training, index), index)


def _distances(features: np.ndarray, training: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Cosine distances of pairs as |u − v|²/2, which is exact for copies, where 1 − cos is not."""
    distances = np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        part = slice(start, start + _BLOCK)
        pair = (features[part], training[index[part]])
        # For unit vectors |u − v|² = 2 − 2·cos.
        u, v = (vectors.unit(x.astype(np.float64)) for x in pair)
        distances[part] = np.sum((u - v) ** 2, axis=1) / 2
    return distances
