"""How grids of embeddings sampled by a prior compare with real ones."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments, vectors
from ssldiff_jax.evaluation.metrics import frechet_interval, intervals, precision_recall

Grids = Float[np.ndarray, "_ k k D"]


@dataclasses.dataclass(frozen=True)
class GridFigures:
    """Figures of generated grids; embeddings are whitened, so that distances count in deviations.

    Attributes:
        frechet_of_cells: Fréchet distance of cells; blocks of its interval are whole grids.
        frechet_of_grids: that of whole grids, each seen by its first principal parts.
        precision: the part of generated grids that lie among real ones (Kynkäänniemi et al. 2019);
            None of too few grids (`precision_recall.PER_NEIGHBOUR`).
        recall: the part of real grids that lie among generated ones; None likewise.
        neighbour_correlation: correlation of cells side by side, over that of real grids.
        nearest_distance: distance to the nearest training grid, over that of real held-out grids;
            near 0 are copies.
    """

    frechet_of_cells: intervals.Estimate
    frechet_of_grids: intervals.Estimate
    precision: float | None
    recall: float | None
    neighbour_correlation: float
    nearest_distance: float


_PARTS = 32  # principal parts of a grid: fewer than the grids that are compared
# As in the paper (Kynkäänniemi et al. 2019).
_NEIGHBOURS = 3


def compare(generated: Grids, real: Grids, training: Grids) -> GridFigures:
    """Figures of `generated` against held-out `real` grids."""
    of_generated, of_real, of_training = (
        principal(g, training) for g in (generated, real, training)
    )
    return GridFigures(
        frechet(generated, real),
        frechet(of_generated, of_real),
        _precision(of_generated, of_real),
        _precision(of_real, of_generated),
        _neighbours(generated) / _neighbours(real),
        float(_nearest(of_generated, of_training).mean() / _nearest(of_real, of_training).mean()),
    )


def frechet(
    generated: Float[np.ndarray, "N *k D"], real: Float[np.ndarray, "M *l D"]
) -> intervals.Estimate:
    """Fréchet distance of the vectors of grids, or of one vector each; blocks are whole grids."""

    def blocks(grids: np.ndarray) -> list[moments.Moments]:
        parts = intervals.blocks_of(len(grids))
        return [moments.Moments.of(grids[part].reshape(-1, grids.shape[-1])) for part in parts]

    return frechet_interval.frechet_estimate(blocks(generated), blocks(real))


def principal(grids: Grids, training: Grids) -> Float[np.ndarray, "N P"]:
    """Whole grids as their first principal parts, those of training grids."""
    flat = training.reshape(len(training), -1)
    mean = flat.mean(axis=0)
    # N grids differ along N − 1 directions.
    parts = min(_PARTS, len(training) - 1, flat.shape[1])
    # 640 grids are enough for 32 directions: the cost does not grow with the training data.
    _, _, axes = np.linalg.svd(flat[: 20 * _PARTS] - mean, full_matrices=False)
    return (grids.reshape(len(grids), -1) - mean) @ axes[:parts].T


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A ridge regression from grids, as `principal` parts, to values."""

    solution: Float[np.ndarray, "P1 K"]

    @classmethod
    def fit(cls, features: Float[np.ndarray, "M P"], values: Float[np.ndarray, "M K"]) -> "Probe":
        """Learnt from real grids."""
        design = _with_ones(features)
        # In proportion to the number of examples, so that the ridge means the same for any.
        weight = design.shape[0] / 100
        # Normal equations: the ridge keeps them regular where grids are fewer than features.
        normal = design.T @ design + weight * np.eye(design.shape[1])
        return cls(np.linalg.solve(normal, design.T @ values))

    def __call__(self, features: Float[np.ndarray, "N P"]) -> Float[np.ndarray, "N K"]:
        """Values of grids."""
        return _with_ones(features) @ self.solution


def _with_ones(features: Float[np.ndarray, "N P"]) -> Float[np.ndarray, "N P1"]:
    """A column for the constant."""
    return np.column_stack([features, np.ones(len(features))])


def agreement(
    requested: Float[np.ndarray, "N K"], generated: Float[np.ndarray, "N P"], probe: Probe
) -> float:
    """Correlation of requested values with those that a probe reads in generated grids, the mean
    over all that vary."""
    predicted = probe(generated)
    # A label that never varies has no correlation.
    varies = (requested.std(axis=0) > 1e-6) & (predicted.std(axis=0) > 1e-9)
    if not varies.any():
        return 0.0
    pairs = zip(requested.T[varies], predicted.T[varies], strict=True)
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


def _precision(points: Float[np.ndarray, "N P"], others: Float[np.ndarray, "M P"]) -> float | None:
    if min(len(points), len(others)) < precision_recall.PER_NEIGHBOUR * _NEIGHBOURS:
        return None
    return precision_recall.precision(points, others, k=_NEIGHBOURS)


def _nearest(points: Float[np.ndarray, "N P"], others: Float[np.ndarray, "M P"]) -> np.ndarray:
    return _distances(points, others).min(axis=1)


def _distances(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "N M"]:
    a, b = a.astype(np.float64), b.astype(np.float64)  # near ones are small differences
    return np.sqrt(vectors.squared_distances(a, b))


def _neighbours(grids: Grids) -> float:
    """Mean correlation of cells side by side, over both directions."""
    # Whitened components vary alike, so that their plain mean is one correlation.
    centred = grids - grids.mean(axis=(0, 1, 2))
    products = [(centred[:, :, 1:] * centred[:, :, :-1]), (centred[:, 1:] * centred[:, :-1])]
    return float(np.mean([p.mean() for p in products]) / np.mean(centred**2))
