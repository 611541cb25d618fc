"""Distances between sets of features."""

import numpy as np
import scipy.linalg
from jaxtyping import Float

Features = Float[np.ndarray, "N D"]


def frechet_distance(a: Features, b: Float[np.ndarray, "M D"]) -> float:
    """Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017).

    |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½), the root taken through the symmetric
    Σa^½ Σb Σa^½, which stays real where a covariance is singular.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"at least 2 features are needed on each side, got {len(a)} and {len(b)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root_a = _root(cov_a)
    cross = scipy.linalg.eigvalsh(root_a @ cov_b @ root_a)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))
    return float(mean + trace)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = scipy.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
