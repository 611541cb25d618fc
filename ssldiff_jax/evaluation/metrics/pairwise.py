"""All pairs of two sets of vectors, some rows at a time."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import moments, vectors

ENTRIES = 2**24
"""Of one stripe: 64 MiB in float32, whatever the sets' sizes."""

LARGEST = 10_000
"""Vectors whose pairs are all looked at: 10⁸ distances of 768 numbers take seconds on two cores,
those of five times as many vectors minutes."""


def evenly(x: Float[np.ndarray, "N D"], count: int) -> Float[np.ndarray, "_ D"]:
    """`count` of the vectors, one of each of as many stretches, so that each slide has its part;
    all where they are no more."""
    if len(x) <= count:
        return x
    edges = np.arange(count + 1) * len(x) // count
    # At random within: every fifth of classes in turn would be of one class.
    return x[np.random.default_rng(0).integers(edges[:-1], edges[1:])]


def parted(count: int, parts: int) -> list[Int[np.ndarray, "_"]]:
    """Which of `count` vectors are in each of some parts, in their order: of every `parts` side by
    side each part has one, so that it has its share of every slide. Sets of one size are parted
    alike."""
    turns = np.tile(np.arange(parts), (-(-count // parts), 1))
    # At random: of classes in turn each part would have one class.
    part = np.random.default_rng(0).permuted(turns, axis=1).ravel()[:count]
    return [np.flatnonzero(part == number) for number in range(parts)]


def require(a: np.ndarray, b: np.ndarray, least: int, names: tuple[str, str]) -> None:
    """ValueError unless both sets have `least` vectors or more, all finite, of one dimension, and
    not so long that their squared distances are infinite."""
    for side, name in zip((a, b), names, strict=True):
        if len(side) < least:
            raise ValueError(f"expected at least {least} {name} vectors, got {len(side)}")
        moments.require_finite(side, f"{name} vectors")
        # Not np.abs, which would copy the set.
        highest = float(max(side.max(), -side.min())) if side.size else 0.0
        dtype = np.result_type(side, np.float32)
        # |a − b|² ≤ 4·D·most², which has to stay finite.
        most = float(np.sqrt(np.finfo(dtype).max / (4 * max(side.shape[1], 1))))
        if highest > most:
            raise ValueError(
                f"expected {name} vectors of numbers up to {most:.1g} in {dtype}, got {highest:.1g}"
            )
    if a.shape[1] != b.shape[1]:
        dims = f"{a.shape[1]} ({names[0]}) and {b.shape[1]} ({names[1]})"
        raise ValueError(f"expected vectors of one dimension, got {dims}")


def is_all_same(x: Float[np.ndarray, "N D"]) -> bool:
    """Whether all vectors are the same but for rounding."""
    # Relative to a length, a millionth: above the rounding of float32.
    apart = np.ptp(x, axis=0).astype(np.float64)
    return bool(apart @ apart <= 1e-12 * np.sum(x[0].astype(np.float64) ** 2))


def rows(count: int, others: int) -> Iterator[slice]:
    """Slices of 0 … count − 1, so that each against all `others` is one stripe."""
    step = max(1, ENTRIES // max(others, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def distance_stripes(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]
) -> Iterator[tuple[slice, Float[np.ndarray, "_ M"]]]:
    """Stripes of |a − b|², and which rows of `a` they are.

    In float32 unless a set is float64. Errors are those of |a|² + |b|²: centre the sets before.
    """
    dtype = np.result_type(a, b, np.float32)
    a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    square_b = np.sum(b**2, axis=1)
    for part in rows(len(a), len(b)):
        yield part, vectors.squared_distances(a[part], b, square_b=square_b)
