"""Patches of a run's records, and their classes: measured in their pixels, or recorded."""

import dataclasses
import functools
import logging
from collections.abc import Iterable
from concurrent import futures
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from tensorflow_datasets.proto import tf_example_pb2

from ssldiff_jax.core import arrays, machine, schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import mosaic, plan, shuffle
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.runs import artifacts, region_labels, stage

_LOG = logging.getLogger(__name__)

Labels = Literal["stain", "landcover", "recorded"]
Patch = tuple[plan.Square, arrays.ImageUint8]


@dataclasses.dataclass(frozen=True)
class Source:
    """Records of a split, and what they say of themselves."""

    context: stage.Context
    split: str

    @functools.cached_property
    def records(self) -> records_lib.RecordSource:
        """The records."""
        return artifacts.records(self.context, self.split)

    @functools.cached_property
    def mosaic(self) -> mosaic.Mosaic:
        """The same by their places on slides."""
        return mosaic.Mosaic(self.records, self.context.config.data.records.record_px)

    def patch(self, number: int, shift: int | None = None) -> Patch:
        """The patch at (shift, shift) px of a record, by default in its middle: of records that
        overlap less, those overlap nowhere."""
        data = self.context.config.data
        px = data.crops.patch_px
        at = (data.records.record_px - px) // 2 if shift is None else shift
        slide, top, left, _ = self.records.places[number].tolist()
        square = plan.Square(slide, top + at, left + at, px, px)
        return square, self.records[number][at : at + px, at : at + px]

    def metadata(self, number: int, name: str) -> str:
        """A text that a record holds beside its image."""
        return metadata(self.records.record(number), name)


def shifts_of(data: data_config.DataConfig) -> tuple[int, ...]:
    """How far into a record, px, patches are taken: its middle, then other places."""
    room = data.records.record_px - data.crops.patch_px
    return tuple(dict.fromkeys((room // 2, 0, room, room // 4, 3 * room // 4)))


def metadata(record: bytes, name: str) -> str:
    """A text that a serialised record holds."""
    features = tf_example_pb2.Example.FromString(record).features
    return features.feature[name].bytes_list.value[0].decode()


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Some patches of a split, those of one slide side by side.

    Attributes:
        source: the split.
        places: number of a record, and how far into it a patch lies, px.
    """

    source: Source
    places: Int[np.ndarray, "N 2"]

    @classmethod
    def at_most(cls, source: Source, count: int) -> "Sample":
        """`count` patches as `choose` takes them; all that there are where these are no more, or
        for 0. Eight bytes each are in memory."""
        shifts = np.array(shifts_of(source.context.config.data), np.int32)
        if 0 < count < len(source.records) * len(shifts):
            return cls.choose(source, count)
        numbers = np.arange(len(source.records), dtype=np.int32)
        places = np.stack([np.repeat(numbers, len(shifts)), np.tile(shifts, len(numbers))], axis=1)
        return cls(source, places)

    @classmethod
    def choose(cls, source: Source, count: int) -> "Sample":
        """`count` patches in the middle of records; where records are few, at other places of
        them too, and fewer, with a warning, where there are no more."""
        order = shuffle.first(count, len(source.records), seed=0)
        shifts = shifts_of(source.context.config.data)
        taken = [order[: max(count - i * len(order), 0)] for i in range(len(shifts))]
        numbers = np.concatenate(taken)
        shift = np.repeat(shifts, [len(part) for part in taken])
        if len(numbers) < count:
            _LOG.warning(
                "%d of the %d patches of %s wanted are there", len(numbers), count, source.split
            )
        # Patches of one record overlap: they leave a jackknife together.
        slides = source.records.places[numbers, 0]
        together = np.lexsort((shift, numbers, slides))
        return cls(source, np.stack([numbers, shift], axis=1)[together])

    def __len__(self) -> int:
        return len(self.places)

    def patch(self, index: int) -> Patch:
        """One of them."""
        return self.source.patch(*self.places[index].tolist())

    def pixels(self, start: int, stop: int) -> UInt8[np.ndarray, "N s s 3"]:
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
        _, first, member = np.unique(slides, return_index=True, return_inverse=True)
        names = [self.source.metadata(number, "case") for number in self.places[first, 0].tolist()]
        return [names[slide] for slide in member.tolist()]

    def classes(self, labels: Labels) -> list[str]:
        """What each shows, or was recorded as. Raises ConfigError where records hold nothing."""
        if labels == "recorded":
            return recorded(self.source, self.places[:, 0].tolist())
        measure = PixelLabels.of_run(self.source.context, labels)
        return [measure.most(self.patch(index)) for index in range(len(self))]


@dataclasses.dataclass(frozen=True)
class PixelLabels:
    """What squares of a run show, whatever conditions its prior."""

    name: measures.Name
    regions: region_labels.RegionLabels

    @classmethod
    def of_run(cls, context: stage.Context, name: measures.Name) -> "PixelLabels":
        """That of a name, on the slides of a run."""
        config = context.config
        nothing = dict.fromkeys(("labels", "numbers", "captions", "text_encoder"), "")
        measured = dataclasses.replace(config.prior.conditions, measure=name, **nothing)
        prior = dataclasses.replace(config.prior, conditions=measured)
        config = dataclasses.replace(config, prior=prior)
        context = dataclasses.replace(context, config=config)
        return cls(name, region_labels.RegionLabels(context))

    def shown(self, square: plan.Square, pixels: arrays.ImageUint8) -> Float[np.ndarray, "K"]:
        """The part of every class of pixels in a square."""
        classes = self.regions.classes(mosaic.Region(square, 0, 0, 0, 1), pixels)
        return np.bincount(classes.ravel(), minlength=len(self.names)) / classes.size

    def most(self, patch: Patch) -> str:
        """The class that most pixels of a patch have."""
        return self.names[self.shown(*patch).argmax()]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return measures.CLASSES[self.name]


def recorded(source: Source, numbers: Iterable[int]) -> list[str]:
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
