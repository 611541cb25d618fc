"""Whether generated features lie among real ones, and real ones among generated."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssldiff_jax.evaluation import stripes

_NAMES = ("generated", "real")


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """Figures of balls around features, each as wide as to its k-th neighbour of the same set.

    Attributes:
        precision: the part of generated features in a real one's ball.
        recall: the part of real features in a generated one's ball (Kynkäänniemi et al. 2019).
        density: how many real ones' balls a generated feature is in, over k; 1 is real's own.
        coverage: the part of real features whose ball has a generated one (Naeem et al. 2020).
        neighbours: k of precision and recall, and k of density and coverage.
        counts: how many features, generated and real; all four figures change with them.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    neighbours: tuple[int, int]
    counts: tuple[int, int]


def compare(
    generated: Float[np.ndarray, "N D"],
    real: Float[np.ndarray, "M D"],
    *,
    k_recall: int = 3,
    k_density: int = 5,
) -> Fidelity:
    """All four figures; a border belongs to its ball. Memory does not grow with N·M."""
    stripes.require(generated, real, 2, _NAMES)
    origin = real.mean(axis=0)
    generated, real = generated - origin, real - origin
    wide = _radii(real, (k_recall, k_density), "real")
    of_generated = _radii(generated, (k_recall,), "generated")[0]
    is_precise = np.zeros(len(generated), bool)
    recalled = covered = inside = 0
    for part, distance in stripes.squared_distances(real, generated):
        is_precise |= (distance <= wide[0][part, None]).any(axis=0)
        is_inside = distance <= wide[1][part, None]
        inside += int(is_inside.sum())
        covered += int(is_inside.any(axis=1).sum())
        recalled += int((distance <= of_generated).any(axis=1).sum())
    return Fidelity(
        float(is_precise.mean()),
        recalled / len(real),
        inside / (k_density * len(generated)),
        covered / len(real),
        (k_recall, k_density),
        (len(generated), len(real)),
    )


def precision(
    points: Float[np.ndarray, "N D"], others: Float[np.ndarray, "M D"], *, k: int = 3
) -> float:
    """The part of `points` in the ball of one of `others`; recall with the two exchanged."""
    stripes.require(points, others, 1, ("compared", "other"))
    origin = others.mean(axis=0)
    points, others = points - origin, others - origin
    radii = _radii(others, (k,), "other")[0]
    inside = 0
    for _, distance in stripes.squared_distances(points, others):
        inside += int((distance <= radii).any(axis=1).sum())
    return inside / len(points)


def _radii(x: Float[np.ndarray, "N D"], ks: tuple[int, ...], name: str) -> list[np.ndarray]:
    """Squared distances of every vector to its k-th neighbour, itself not counted."""
    if not 1 <= min(ks) <= max(ks) < len(x):
        raise ValueError(f"expected more {name} vectors than neighbours, got {len(x)} for k={ks}")
    found = [np.empty(len(x), np.result_type(x, np.float32)) for _ in ks]
    for part, distance in stripes.squared_distances(x, x):
        distance[np.arange(len(distance)), np.arange(part.start, part.stop)] = np.inf
        distance.partition([k - 1 for k in ks], axis=1)
        for radii, k in zip(found, ks, strict=True):
            radii[part] = distance[:, k - 1]
    return found
