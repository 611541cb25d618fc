"""The Fréchet distance of sets of features; `frechet_interval` says how sure it is."""

import functools
import logging

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import blas
from ssldiff_jax.core import moments as moments_lib

Features = Float[np.ndarray, "N D"]


def frechet_distance(a: Features, b: Float[np.ndarray, "M D"]) -> float:
    """Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017), uncorrected."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"at least 2 features are needed on each side, got {len(a)} and {len(b)}")
    return frechet(moments_lib.Moments.of(a, "features"), moments_lib.Moments.of(b, "features"))


def frechet(a: moments_lib.Moments, b: moments_lib.Moments) -> float:
    """Fréchet distance of two Gaussians of these moments.

    |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½), the root taken through the symmetric
    Σa^½ Σb Σa^½, which stays real where a covariance is singular. Samples are biased upward: those
    of N from the same Gaussian of unit variance are D²/2N + 2D/N apart. Warnings name features
    that are all the same, and of no more features than dimensions.
    """
    check(a, b)
    with blas.one_thread():
        return distance(a, root(a.covariance), b)


def distance(a: moments_lib.Moments, root_a: np.ndarray, b: moments_lib.Moments) -> float:
    """`frechet` of moments of which Σa^½ is known; nothing is checked."""
    cov_a, cov_b = a.covariance, b.covariance
    # Similar to Σa Σb, so that its eigenvalues are the same; but symmetric, so that they come out
    # real.
    cross = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))
    return float(np.sum((a.mean - b.mean) ** 2) + trace)


def root(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """The symmetric square root; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def check(a: moments_lib.Moments, b: moments_lib.Moments) -> None:
    """ValueError for two dimensions; a warning for moments that a distance means little of."""
    if a.dim != b.dim:
        raise ValueError(f"expected features of one dimension, got {a.dim} and {b.dim}")
    for side in (a, b):
        _warn_if_degenerate(side)


def is_all_same(side: moments_lib.Moments) -> bool:
    """Whether all vectors are the same but for rounding; not of one alone."""
    size = side.count * (side.mean @ side.mean)
    # A millionth of a length: above float32's rounding, below what any extractor tells apart.
    return side.count > 1 and bool(np.trace(side.scatter) <= 1e-12 * size)


def _warn_if_degenerate(side: moments_lib.Moments) -> None:
    log = logging.getLogger(__name__)
    if is_all_same(side):
        log.warning(
            "all %d features are the same: the extractor distinguishes no images", side.count
        )
    # N vectors spread along N − 1 directions at most.
    elif side.count <= side.dim:
        _say_singular(side.count, side.dim)


@functools.cache
def _say_singular(count: int, dim: int) -> None:
    """Once for each size: an evaluation has a dozen distances of as many features."""
    logging.getLogger(__name__).warning(
        "%d features of dimension %d: the covariance is singular, their distances biased upward",
        count,
        dim,
    )
