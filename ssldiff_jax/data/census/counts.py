"""What is counted: of one slide, and of all that a config names."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from ssldiff_jax.core import arrays, estimates
from ssldiff_jax.data import archive
from ssldiff_jax.formats import shards

T = TypeVar("T")

ENCODED = 384
"""Records that are compressed to know their size: to 2 % of the mean where one varies by a
fifth."""


@dataclasses.dataclass(frozen=True)
class Counted:
    """What a slide will give.

    Attributes:
        name: of its file.
        counts: records by split.
        sizes: bytes of some of its records.
        marks: what copies of it share.
        regions: how many regions may be generated from it.
        picture: one of them, None where there is none, or no pixels were asked for.
        reason: why it cannot be used; "" where it can.
        stored: bytes of its files of records, where it was tiled before.
    """

    name: str
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    marks: tuple[str, ...] = ()
    regions: int = 0
    picture: arrays.ImageUint8 | None = None
    reason: str = ""
    stored: int | None = None


@dataclasses.dataclass(frozen=True)
class Census:
    """What will become records.

    Attributes:
        named: slides, or patches of a list, that the config names.
        looked_at: how many of them were opened.
        unusable: of all named.
        records: by split.
        record_bytes: of one, in the mean.
        stored: bytes of the files of records and of their places.
        regions: held-out references that images are generated from.
        are_pages: whether these are pages of single patches.
        picture: pixels of a region, where one was read.
        names: by the number of a slide or patch.
        reasons: why some cannot be used, by name.
    """

    named: int
    looked_at: int
    unusable: estimates.Estimate
    records: Mapping[str, estimates.Estimate]
    record_bytes: estimates.Estimate
    stored: estimates.Estimate
    regions: estimates.Estimate
    are_pages: bool
    picture: arrays.ImageUint8 | None
    names: Mapping[int, str]
    reasons: Mapping[str, str]


def mean_size(counted: Sequence[Counted], *, is_all: bool) -> estimates.Estimate:
    """Bytes of a record, of which some of each slide were compressed: slides count by how many they
    have. Exact where these are all records of all slides."""
    counts = np.array([sum(one.counts.values()) for one in counted if one.sizes], float)
    if not counts.sum():
        return estimates.Estimate(0.0, "no record to compress")
    means = np.array([np.mean(one.sizes) for one in counted if one.sizes])
    sizes = [size for one in counted for size in one.sizes]
    mean = float(counts @ means / counts.sum())
    if is_all and len(sizes) == counts.sum():
        return estimates.Estimate(mean)
    of_all = int(counts.sum()) if is_all else max(_MANY, len(sizes) + 1)
    about = estimates.of_mean(sizes, of_all, f"{len(sizes)} records, compressed") * (1 / of_all)
    return dataclasses.replace(
        about, value=mean, low=about.low + mean - about.value, high=about.high + mean - about.value
    )


_MANY = 10**9


def stored_bytes(
    counted: Sequence[Counted], mean: estimates.Estimate, named: int
) -> estimates.Estimate:
    """Bytes of the files of records of all slides, and twice of their places: in the archive and in
    the data set. Copies are cut before they are known to be copies."""
    files = [_file_bytes(one) for one in counted]
    if len(counted) < named:
        return estimates.of_mean(files, named, f"{len(counted)} of {named} slides; {mean.source}")
    is_known = all(one.stored is not None for one in counted if one.counts)
    if mean.is_exact or is_known or not mean.value:
        return estimates.Estimate(float(sum(files)))
    low, high = (bound / mean.value for bound in (mean.low, mean.high))
    total = sum(files)
    return estimates.Estimate(total, mean.source, low * total, high * total)


_PLACE = 2 * 4 * np.dtype(np.int32).itemsize


def _file_bytes(one: Counted) -> float:
    """Of what one slide gives."""
    count = sum(one.counts.values())
    places = count * _PLACE
    if one.stored is not None or not count:
        return (one.stored or 0) + places
    each = float(np.mean(one.sizes))
    shard = archive.SHARD_RECORDS
    return places + sum(shards.store_bytes(n, each, shard) for n in one.counts.values() if n)


def spread_over(things: Sequence[T], count: int) -> list[T]:
    """Some of them, evenly at random, in their order; all for 0."""
    if not count or count >= len(things):
        return list(things)
    picked = np.random.default_rng(0).choice(len(things), count, replace=False)
    return [things[i] for i in np.sort(picked)]


def some_of(every: Sequence[T], count: int) -> list[T]:
    """As many as are wanted, evenly over all: neighbours are alike, and the mean of these is nearer
    to that of all than a random sample's."""
    if count >= len(every):
        return list(every)
    middles = (np.arange(count) + 0.5) * len(every) / count
    return [every[int(i)] for i in middles]
