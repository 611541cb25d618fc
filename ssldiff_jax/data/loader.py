"""Batches for training: shuffled, seeded, sharded by host, and restorable to the example.

Every example carries `index`, its place in the global stream, which keys its noise; so the
numbers do not depend on how many hosts or devices share a batch.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ssldiff_jax.core import arrays, changes, rng
from ssldiff_jax.core import bands as bands_lib
from ssldiff_jax.data import crops, shuffle, store
from ssldiff_jax.data import records as records_lib

if TYPE_CHECKING:
    import grain


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Threads that decode, and examples they keep ready; neither changes what is read."""

    num_threads: int = dataclasses.field(metadata=changes.free("the same examples in one order"))
    prefetch: int = dataclasses.field(metadata=changes.free("the same examples in one order"))


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches without end; each is decided by its number alone."""

    dataset: "grain.IterDataset"
    later: Callable[[int], "Batches"] | None = None

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self.since(0)

    def since(self, number: int) -> Iterator[dict[str, np.ndarray]]:
        """Those from a number on."""
        iterator = iter(self.dataset)
        # All that Grain's iterator knows: order and random numbers are functions of the place.
        iterator.set_state({"next_index": number})
        return iterator

    def shifted(self, count: int) -> "Batches":
        """The same number of every batch, with examples that lie `count` later in the stream."""
        return self.later(count) if count else self


def _share(batch_size: int) -> int:
    """Examples of a batch on every host."""
    # Every host must bring as many: jax.make_array_from_process_local_data wants even shares.
    count = jax.process_count()
    if batch_size % count:
        raise ValueError(
            f"batch_size must divide over hosts, got batch_size={batch_size}, hosts={count}"
        )
    return batch_size // count


@dataclasses.dataclass(frozen=True)
class _Stream:
    """Numbers without end of examples, shuffled again in every epoch, and which of them are this
    host's of every batch. Examples are read by the batch: one at a time through Grain takes twice
    as long for JPEGs and ten times for arrays.

    Examples are of levels, one after the other, as many of each as `counts` says. Every level has
    an equal chance: of L levels any L places in a row have one example each, and a level with few
    examples begins another epoch sooner.
    """

    counts: tuple[int, ...]
    batch_size: int
    seed: int
    shift: int = 0

    @property
    def count(self) -> int:
        """Examples of all levels."""
        return sum(self.counts)

    def __len__(self) -> int:
        # Grain wants a length; places count to 2⁶³ − 1.
        return np.iinfo(np.int64).max // self.batch_size

    def places(self, number: int) -> range:
        """This host's places of a batch."""
        start = number * self.batch_size + self.shift
        return range(start + jax.process_index(), start + self.batch_size, jax.process_count())

    def numbers(self, places: range) -> list[int]:
        """The examples at these places."""
        at, num_levels = np.array(places), len(self.counts)
        numbers, first = np.empty(len(at), np.int64), 0
        for level, count in enumerate(self.counts):
            here = at % num_levels == level
            # The first level's is the seed itself, which it is of one level alone.
            seed = rng.seed_of(self.seed, "level", level) if level else self.seed
            numbers[here] = first + shuffle.examples_at(at[here] // num_levels, count, seed)
            first += count
        return numbers.tolist()

    def batches(self, source: Any, config: LoaderConfig) -> Batches:
        """Those of a source that reads a batch by its number."""
        # Not at the top: a machine that only computes need not have it.
        import grain

        _share(self.batch_size)
        options = grain.ReadOptions(
            num_threads=config.num_threads,
            # Counted in batches, which are Grain's elements here; one for each thread at least.
            prefetch_buffer_size=max(config.num_threads, config.prefetch // self.batch_size),
        )

        def later(count: int) -> Batches:
            moved = dataclasses.replace(self, shift=self.shift + count)
            return moved.batches(dataclasses.replace(source, stream=moved), config)

        return Batches(grain.MapDataset.source(source).to_iter_dataset(options), later)


def _index(places: range) -> np.ndarray:
    # JAX has no int64 unless it is switched on.
    return (np.array(places) % np.iinfo(np.int32).max).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class _Patches:
    """Random crops of `side` px, by the number of their batch; `see` makes RGB of them."""

    records: tuple[records_lib.RecordSource, ...]
    stream: _Stream
    side: int
    dihedral: bool
    see: bands_lib.View | None = None

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        places = self.stream.places(number)
        numbers = self.stream.numbers(places)
        # Into one array: the system gives no page to a crop that a batch is then copied from.
        num_bands, dtype = self._kind
        images = np.empty((len(numbers), self.side, self.side, num_bands), dtype)
        for image, place, n in zip(images, places, numbers, strict=True):
            self._crop(place, n, image)
        return {"pixels": images, "index": _index(places)}

    @property
    def _kind(self) -> tuple[int, np.dtype]:
        """Bands of a batch, and their type: levels of one run have the same."""
        first = self.records[0]
        return (first.num_bands, first.dtype) if self.see is None else (3, np.dtype(np.uint8))

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Up to which number the records of each level go."""
        return list(itertools.accumulate(self.stream.counts))

    def _crop(self, position: int, number: int, out: arrays.Pixels) -> None:
        level = bisect.bisect_right(self._ends, number)
        record = self.records[level][number - (self._ends[level - 1] if level else 0)]
        side = self.side
        # By the place in the stream, so that each epoch cuts other squares of a record.
        generator = np.random.Generator(np.random.Philox(key=[self.stream.seed, position]))
        crop = crops.sample_crop(generator, number, min(record.shape[:2]), side, self.dihedral)
        crop.cut(record, side, out, self.see)


def patch_batches(
    *records: records_lib.RecordSource,
    side: int,
    dihedral: bool,
    batch_size: int,
    seed: int,
    config: LoaderConfig,
    see: bands_lib.View | None = None,
) -> Batches:
    """Random crops of `side` px: batches {pixels (B, side, side, bands), index (B,)}; as many of
    each level's records as of the others'. Where `see` is given, crops are seen through it: RGB of
    8 bits."""
    stream = _Stream(tuple(map(len, records)), batch_size, seed)
    return stream.batches(_Patches(records, stream, side, dihedral, see), config)


@dataclasses.dataclass(frozen=True)
class _Cached:
    """This host's share of every batch of aligned stores, without the fields of `leave_out`.

    Raises ValueError when their lengths differ.
    """

    stores: tuple[store.Store, ...]
    stream: _Stream
    leave_out: tuple[str, ...] = ()

    def __post_init__(self):
        for other in self.stores:
            if len(other) != self.stream.count:
                raise ValueError(
                    f"stores must be aligned, got {self.stream.count} examples in "
                    f"{self.stores[0]} and {len(other)} in {other}"
                )

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        places = self.stream.places(number)
        numbers = self.stream.numbers(places)
        batch = {"index": _index(places)}
        for part in self.stores:
            batch |= part.batch(numbers)
        return {name: values for name, values in batch.items() if name not in self.leave_out}


def cached_batches(
    *stores: store.Store,
    batch_size: int,
    seed: int,
    config: LoaderConfig,
    leave_out: tuple[str, ...] = (),
    counts: tuple[int, ...] = (),
) -> Batches:
    """What aligned stores hold, such as {moments (B, h, w, 2C), embedding (B, D)}, and index (B,);
    all fields but those of `leave_out`. Of examples of several levels, which follow each other,
    `counts` says how many each has: each is seen as often as the others.

    Raises ValueError when their lengths differ.
    """
    stream = _Stream(counts or (len(stores[0]),), batch_size, seed)
    return stream.batches(_Cached(stores, stream, leave_out), config)
