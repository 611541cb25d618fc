"""The Fréchet distance of populations, estimated from samples of them, with an interval."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import blas, machine
from ssldiff_jax.core import moments as moments_lib
from ssldiff_jax.evaluation.metrics import frechet, intervals

Blocks = Sequence[moments_lib.Moments]

# Of 160 numbers and twice as many vectors the jackknife's first term alone held the truth in none
# of 16 simulations.
_PER_DIMENSION = 2
"""Vectors for each dimension that are there without any block: half of them then still have a
covariance of full rank, and the bias is what a series in 1/N describes."""
_LEAST_BLOCKS = 5
"""Of a side: the halves of fewer are hardly less than what one block leaves."""


def blocks_of(
    features: Float[np.ndarray, "N D"], blocks: int = intervals.BLOCKS
) -> list[moments_lib.Moments]:
    """Moments of contiguous blocks of features (`intervals.blocks_of`)."""
    parts = intervals.blocks_of(len(features), blocks)
    return [moments_lib.Moments.of(features[part], "features") for part in parts]


def frechet_estimate(a: Blocks, b: Blocks, *, paired: bool = False) -> intervals.Estimate:
    """Fréchet distance with an interval, from the moments of blocks (`blocks_of`, or one block a
    slide) of either side; a side that is one block alone counts as known exactly.

    The jackknife leaves out each block once. Percentiles of a bootstrap do not serve, because a
    resample of N has the bias of N a second time; here the bias, a series in 1/N (Chong and
    Forsyth 2020), is taken off: its first term by the jackknife, and, because that alone is short
    by D·(D/N)², its second by distances of halves. The interval has both corrections in it.
    Where block i of `a` was generated from block i of `b`, as `paired` says, both are left out
    together: two samples of the same places share most of what chance there is.

    Of few vectors (`too_few`) there is no interval, and nothing but the uncorrected distance, of
    one vector not even that; nor is there any of sides whose vectors are all the same, which an
    extractor that sees nothing would have 0 apart.
    """
    whole = [moments_lib.Moments.merged(side) for side in (a, b)]
    frechet.check(*whole)
    if paired and len(a) != len(b):
        raise ValueError(f"expected blocks in pairs, got {len(a)} and {len(b)}")
    counts = whole[0].count, whole[1].count
    if all(map(frechet.is_all_same, whole)):
        return intervals.Estimate.all_same(counts)
    reason = next((why for side in (a, b) if (why := too_few(side))), None)
    # Distances side by side: LAPACK lets go of the interpreter, and its own threads would spin.
    # Beside other work on two cores 42 decompositions took 33 s by two threads, 2.9 s by one.
    with blas.one_thread(), futures.ThreadPoolExecutor(machine.cores()) as pool:
        if reason:
            value = _distance(*map(_Gaussian, whole)) if min(counts) > 1 else None
            return intervals.Estimate.too_few(value, counts, reason)
        return (_of_pairs if paired else _apart)(a, b, counts, pool)


def too_few(blocks: Blocks) -> str | None:
    """Why blocks of one side give no interval; None where they do."""
    sizes = [block.count for block in blocks]
    count, dim, largest = sum(sizes), blocks[0].dim, max(sizes) if len(sizes) > 1 else 0
    if count - largest < _PER_DIMENSION * dim:
        return f"{count} vectors of {dim} numbers, {_needed(dim, sizes)} needed"
    if 1 < len(sizes) < _LEAST_BLOCKS:
        return f"{len(sizes)} blocks of vectors, {_LEAST_BLOCKS} needed"
    return None


def _needed(dim: int, sizes: Sequence[int]) -> int:
    """How many vectors would do, in blocks of one size."""
    least = _PER_DIMENSION * dim
    if max(sizes) == 1:  # they would be more blocks if they were more
        return _least_of(max(least, _LEAST_BLOCKS), least, intervals.BLOCKS)
    if len(sizes) == 1:
        return least
    return _least_of(least, least, len(sizes))


def _least_of(first: int, needed: int, blocks: int) -> int:
    """The least number, from `first` on, of which the largest of equal blocks leaves `needed`."""
    return next(n for n in itertools.count(first) if n - math.ceil(n / blocks) >= needed)


class _Gaussian:
    """Moments, and the root of their covariance, which many distances share."""

    def __init__(self, moments: moments_lib.Moments):
        self.moments = moments

    def without(self, block: moments_lib.Moments) -> "_Gaussian":
        """That of the vectors which are not in a block of these."""
        return _Gaussian(self.moments.without(block))

    @functools.cached_property
    def root(self) -> Float[np.ndarray, "D D"]:
        return frechet.root(self.moments.covariance)


_Split = tuple[_Gaussian, _Gaussian]


def _apart(
    a: Blocks, b: Blocks, counts: tuple[int, int], pool: futures.Executor
) -> intervals.Estimate:
    """Of independent samples."""
    whole = _merged(a), _merged(b)
    value = _distance(*whole)
    halves = [_halves(blocks, _splits(blocks)) for blocks in (a, b)]
    sides, further, of_halves = [], 0.0, []
    for blocks, own, other, split in zip((a, b), whole, whole[::-1], halves, strict=True):
        if len(blocks) < 2:
            continue
        # One block at a time: moments of 2048 numbers are 32 MiB.
        without = lambda block, own=own, other=other: (own.without(block), other)
        side = intervals.LeaveOneBlockOut(_distances(pool, without, blocks), _sizes(blocks))
        beside = lambda half, other=other: (half, other)
        of_halves.append(_distances(pool, beside, _flat(split)).mean())
        # The two sides are independent, so that their biases add up.
        further += _second_term(side, value, of_halves[-1], split)
        sides.append(side)
    if len(sides) == 2:
        # A side may have one split where the other has two: as many as both have.
        both = [(x, y) for one, two in zip(*halves, strict=False) for x in one for y in two]
        # γ/(NM) is in either side's correction, once too often: halving both adds 3γ/(NM).
        further += _distances(pool, tuple, both).mean() - sum(of_halves) + value
    return intervals.jackknife(value, counts, sides, least=0, further=further)


def _of_pairs(
    a: Blocks, b: Blocks, counts: tuple[int, int], pool: futures.Executor
) -> intervals.Estimate:
    """Of samples whose blocks belong together."""
    whole_a, whole_b = _merged(a), _merged(b)
    value = _distance(whole_a, whole_b)
    without = lambda pair: (whole_a.without(pair[0]), whole_b.without(pair[1]))
    side = intervals.LeaveOneBlockOut(_distances(pool, without, zip(a, b, strict=True)), _sizes(a))
    # The side of fewer vectors decides which halves have enough.
    splits = _splits(min(a, b, key=lambda blocks: sum(block.count for block in blocks)))
    halves = _halves(a, splits)
    pairs = zip(_flat(halves), _flat(_halves(b, splits)), strict=True)
    further = _second_term(side, value, _distances(pool, tuple, pairs).mean(), halves)
    return intervals.jackknife(
        value, counts, [side], least=0, further=further, of="pairs of blocks"
    )


def _second_term(
    side: intervals.LeaveOneBlockOut, value: float, of_halves: float, halves: list[_Split]
) -> float:
    """What the 1/N² of the bias adds to the distance that the jackknife corrected.

    With F(n) = F + α/n + β/n², the mean of F(n) − F(N) over halves of N is about α/N + 3β/N², and
    the jackknife of g blocks takes off α/N + e·β/N² with e = (2g − 1)/(g − 1). So the difference
    gives β/N², of which the jackknife took off e − 1 too many.
    """
    blocks = len(side.values)
    taken = (2 * blocks - 1) / (blocks - 1)
    times = np.array([side.sizes.sum() / half.moments.count for half in _flat(halves)])
    first, second = np.mean(times) - 1, np.mean(times**2) - 1
    beta = (of_halves - value - first * side.bias(value)) / (second - taken * first)
    return float((taken - 1) * beta)


def _splits(blocks: Blocks) -> list[tuple[slice, slice]]:
    """Two ways to part blocks into halves: one after the other, and every second one; the latter
    where its smaller half has vectors enough. None of a side that is one block."""
    if len(blocks) < 2:
        return []
    ends = np.cumsum(_sizes(blocks))
    # Blocks are of different sizes where they are slides: the cut whose smaller side is largest.
    middle = 1 + int(np.argmax(np.minimum(ends, ends[-1] - ends)))
    splits = [(slice(None, middle), slice(middle, None))]
    if min(ends[-1] - _sizes(blocks)[::2].sum(), _sizes(blocks)[::2].sum()) >= blocks[0].dim:
        splits.append((slice(None, None, 2), slice(1, None, 2)))
    return splits


def _halves(blocks: Blocks, splits: list[tuple[slice, slice]]) -> list[_Split]:
    return [(_merged(blocks[one]), _merged(blocks[other])) for one, other in splits]


def _flat(halves: list[_Split]) -> list[_Gaussian]:
    return [half for split in halves for half in split]


def _merged(blocks: Blocks) -> _Gaussian:
    return _Gaussian(moments_lib.Moments.merged(blocks))


def _sizes(blocks: Blocks) -> Float[np.ndarray, "G"]:
    return np.array([float(block.count) for block in blocks])


def _distances(
    pool: futures.Executor, sides: Callable[[Any], _Split], of: Iterable[Any]
) -> Float[np.ndarray, "P"]:
    """Distances of what `sides` makes of each."""
    return np.array(list(pool.map(lambda one: _distance(*sides(one)), of)))


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    # The distance is symmetric. `b` is what stays where blocks of the other side are left out, so
    # its root is taken once.
    return frechet.distance(b.moments, b.root, a.moments)
