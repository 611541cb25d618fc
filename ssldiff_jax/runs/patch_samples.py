"""Patches of a run's records, and their classes: measured in their pixels, or recorded."""

import dataclasses
import functools
import logging
from collections.abc import Iterable
from concurrent import futures

import numpy as np
from jaxtyping import Int, UInt

from ssldiff_jax.core import arrays, machine, schema
from ssldiff_jax.data import mosaic, plan, shuffle
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.runs import pixel_labels

_LOG = logging.getLogger(__name__)

Patch = tuple[plan.Square, arrays.Pixels]


def shifts_in(record_px: int, patch_px: int) -> tuple[int, ...]:
    """How far into a record, px, patches are taken: its middle, then other places."""
    room = record_px - patch_px
    return tuple(dict.fromkeys((room // 2, 0, room, room // 4, 3 * room // 4)))


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPatches:
    """Patches of `patch_px` in the records of a split, which are `record_px` wide."""

    records: records_lib.RecordSource
    split: str
    patch_px: int
    record_px: int

    @functools.cached_property
    def mosaic(self) -> mosaic.Mosaic:
        """The records by their places on slides."""
        return mosaic.Mosaic(self.records, self.record_px)

    @property
    def shifts(self) -> tuple[int, ...]:
        """How far into a record, px, patches are taken: its middle, then other places."""
        return shifts_in(self.record_px, self.patch_px)

    def patch(self, number: int, shift: int | None = None) -> Patch:
        """The patch at (shift, shift) px of a record, by default in its middle: of records that
        overlap less, those overlap nowhere."""
        px, at = self.patch_px, self.shifts[0] if shift is None else shift
        slide, top, left, _ = self.records.places[number].tolist()
        square = plan.Square(slide, top + at, left + at, px, px)
        return square, self.records[number][at : at + px, at : at + px]

    def metadata(self, number: int, name: str) -> str:
        """A text that a record holds beside its image."""
        return metadata(self.records.record(number), name)


def metadata(record: bytes, name: str) -> str:
    """A text that a serialised record holds."""
    # Not at the top: a machine that only computes need not have it.
    from tensorflow_datasets.proto import tf_example_pb2

    # TFDS brings the message's code: TensorFlow is not needed.
    features = tf_example_pb2.Example.FromString(record).features
    return features.feature[name].bytes_list.value[0].decode()


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Some patches of a split, those of one slide side by side.

    Attributes:
        source: the split.
        places: number of a record, and how far into it a patch lies, px.
    """

    source: RecordPatches
    places: Int[np.ndarray, "N 2"]

    @classmethod
    def at_most(cls, source: RecordPatches, count: int) -> "Sample":
        """`count` patches as `choose` takes them; all that there are where these are no more, or
        for 0. Eight bytes each are in memory."""
        # int32: of ten million records these places are 400 MB, in int64 twice that.
        shifts = np.array(source.shifts, np.int32)
        if 0 < count < len(source.records) * len(shifts):
            return cls.choose(source, count)
        numbers = np.arange(len(source.records), dtype=np.int32)
        places = np.stack([np.repeat(numbers, len(shifts)), np.tile(shifts, len(numbers))], axis=1)
        return cls(source, places)

    @classmethod
    def choose(cls, source: RecordPatches, count: int) -> "Sample":
        """`count` patches in the middle of records; where records are few, at other places of
        them too, and fewer, with a warning, where there are no more."""
        # Not the run's seed: runs that differ in it are measured on the same patches.
        # The first of the order alone are computed: all of it, of 270 million records, took tens of
        # GB.
        order = shuffle.first(count, len(source.records), seed=0)
        shifts = source.shifts
        taken = [order[: max(count - i * len(order), 0)] for i in range(len(shifts))]
        numbers = np.concatenate(taken)
        shift = np.repeat(shifts, [len(part) for part in taken])
        if len(numbers) < count:
            _LOG.warning(
                "%d of the %d patches of %s wanted are there", len(numbers), count, source.split
            )
        # Patches of one record overlap: they leave a jackknife together.
        slides = source.records.places[numbers, 0]
        # The last key counts first: by slide, then by record.
        together = np.lexsort((shift, numbers, slides))
        return cls(source, np.stack([numbers, shift], axis=1)[together])

    def __len__(self) -> int:
        return len(self.places)

    def patch(self, index: int) -> Patch:
        """One of them."""
        return self.source.patch(*self.places[index].tolist())

    def pixels(self, start: int, stop: int) -> UInt[np.ndarray, "N s s bands"]:
        """Those from `start` up to `stop`, decoded by all cores."""
        indices = range(start, min(stop, len(self)))
        with futures.ThreadPoolExecutor(machine.cores()) as pool:
            return np.stack(list(pool.map(lambda index: self.patch(index)[1], indices)))

    @property
    def part_of_records(self) -> float:
        """Of how many of the split's records a patch is among these, 0…1."""
        return len(np.unique(self.places[:, 0])) / len(self.source.records)

    def cases(self) -> list[str]:
        """The case of each, as its slide's records have it."""
        slides = self.source.records.places[self.places[:, 0], 0]
        # One record a slide is read: all of them say the same.
        _, first, member = np.unique(slides, return_index=True, return_inverse=True)
        names = [self.source.metadata(number, "case") for number in self.places[first, 0].tolist()]
        return [names[slide] for slide in member.tolist()]

    def classes(self, measure: pixel_labels.PixelLabels | None) -> list[str]:
        """What each shows by a measure, or, without one, was recorded as.

        Raises ConfigError where records hold nothing.
        """
        if measure is None:
            return recorded(self.source, self.places[:, 0].tolist())
        return [measure.most(*self.patch(index)) for index in range(len(self))]


def recorded(source: RecordPatches, numbers: Iterable[int]) -> list[str]:
    """The classes that records of a list of patches hold.

    Raises ConfigError where records hold none.
    """
    names = [source.metadata(number, "label") for number in numbers]
    if not all(names):
        raise schema.ConfigError(
            "labels=recorded reads the classes of a list of patches, got "
            f"{names.count('')} of {len(names)} records of {source.split} without one"
        )
    return names


def numbered(names: Iterable[str]) -> Int[np.ndarray, "N"]:
    """A number for each name that differs."""
    return np.unique(np.array(list(names)), return_inverse=True)[1]
