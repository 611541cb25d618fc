"""Distances between sets of features."""

import functools
import logging
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import blas, machine
from ssldiff_jax.core import moments as moments_lib
from ssldiff_jax.evaluation import estimate

Features = Float[np.ndarray, "N D"]


def frechet_distance(a: Features, b: Float[np.ndarray, "M D"]) -> float:
    """Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017)."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"at least 2 features are needed on each side, got {len(a)} and {len(b)}")
    return frechet(moments_lib.Moments.of(a, "features"), moments_lib.Moments.of(b, "features"))


def frechet(a: moments_lib.Moments, b: moments_lib.Moments) -> float:
    """Fréchet distance of two Gaussians of these moments.

    |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½), the root taken through the symmetric
    Σa^½ Σb Σa^½, which stays real where a covariance is singular. Samples are biased upward: those
    of N from the same Gaussian of unit variance are D²/2N + 2D/N apart. Warnings tell of features
    that are all the same, and of no more features than dimensions.
    """
    _check(a, b)
    with blas.one_thread():
        return _frechet(a, _root(a.covariance), b)


def blocks_of(features: Features, blocks: int = estimate.BLOCKS) -> list[moments_lib.Moments]:
    """Moments of contiguous blocks of features (`estimate.blocks_of`)."""
    parts = estimate.blocks_of(len(features), blocks)
    return [moments_lib.Moments.of(features[part], "features") for part in parts]


def frechet_estimate(
    a: Sequence[moments_lib.Moments], b: Sequence[moments_lib.Moments], *, paired: bool = False
) -> estimate.Estimate:
    """Fréchet distance with an interval, from the moments of blocks (`blocks_of`, or one block a
    slide) of either side; a side that is one block alone counts as known exactly.

    The jackknife leaves out each block once: len(a) + len(b) distances. Percentiles of a bootstrap
    do not serve, because a resample of N has the bias of N a second time; here the bias, linear in
    1/N (Chong and Forsyth 2020), is what the jackknife takes off. Where block i of `a` was drawn
    from block i of `b`, as `paired` says, both are left out together: two samples of the same
    places share most of what chance there is.
    """
    whole_a, whole_b = (moments_lib.Moments.merged(side) for side in (a, b))
    _check(whole_a, whole_b)
    counts = whole_a.count, whole_b.count
    if paired:
        value, side = _left_out_in_pairs(a, b, whole_a, whole_b)
        return estimate.jackknife(value, counts, [side], 0, "pairs of blocks")
    sides, value = [], 0.0
    with blas.one_thread(), futures.ThreadPoolExecutor(machine.cores()) as pool:
        for parts, whole, other in ((a, whole_a, whole_b), (b, whole_b, whole_a)):
            root = _root(other.covariance)
            distance = functools.partial(_frechet, other, root)
            value = distance(whole)
            if len(parts) > 1:
                without = list(pool.map(lambda p, w=whole, d=distance: d(w.without(p)), parts))
                sizes = np.array([float(part.count) for part in parts])
                sides.append(estimate.LeftOut(np.array(without), sizes))
    return estimate.jackknife(value, counts, sides, least=0)


def _left_out_in_pairs(a, b, whole_a, whole_b) -> tuple[float, estimate.LeftOut]:
    """(the distance, what it is without each pair of blocks)."""
    if len(a) != len(b):
        raise ValueError(f"expected blocks in pairs, got {len(a)} and {len(b)}")
    distance = lambda x, y: _frechet(y, _root(y.covariance), x)
    without = lambda pair: distance(whole_a.without(pair[0]), whole_b.without(pair[1]))
    with blas.one_thread(), futures.ThreadPoolExecutor(machine.cores()) as pool:
        value = distance(whole_a, whole_b)
        values = np.array(list(pool.map(without, zip(a, b, strict=True))))
    return value, estimate.LeftOut(values, np.array([float(part.count) for part in a]))


def _frechet(a: moments_lib.Moments, root_a: np.ndarray, b: moments_lib.Moments) -> float:
    cov_a, cov_b = a.covariance, b.covariance
    cross = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))
    return float(np.sum((a.mean - b.mean) ** 2) + trace)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _check(a: moments_lib.Moments, b: moments_lib.Moments) -> None:
    """ValueError for two dimensions; a warning for moments that a distance means little of."""
    if a.dim != b.dim:
        raise ValueError(f"expected features of one dimension, got {a.dim} and {b.dim}")
    for side in (a, b):
        _warn_if_degenerate(side)


def _warn_if_degenerate(side: moments_lib.Moments) -> None:
    log = logging.getLogger(__name__)
    size = side.count * (side.mean @ side.mean)
    if side.count > 1 and np.trace(side.scatter) <= 1e-12 * size:
        log.warning("all %d features are the same: the extractor tells none apart", side.count)
    elif side.count <= side.dim:
        log.warning(
            "%d features of dimension %d: the covariance is singular, the distance biased upward",
            side.count,
            side.dim,
        )
