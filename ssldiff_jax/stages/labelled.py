"""Patches of a run's records, and their classes: measured in their pixels, or recorded."""

import dataclasses
import functools
import logging
from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from tensorflow_datasets.proto import tf_example_pb2

from ssldiff_jax.core import arrays
from ssldiff_jax.core import config as config_lib
from ssldiff_jax.data import measures, mosaic, plan, shuffle
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.stages import parts, region_conditions, stage

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
        return parts.records(self.context, self.split)

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

    def told(self, number: int, name: str) -> str:
        """A text that a record holds beside its image."""
        return told(self.records.record(number), name)


def told(record: bytes, name: str) -> str:
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
    def draw(cls, source: Source, count: int) -> "Sample":
        """`count` patches in the middle of records; where records are few, at other places of
        them too, and fewer where there are no more (a warning tells)."""
        data = source.context.config.data
        room = data.records.record_px - data.crops.patch_px
        order = shuffle.first(count, len(source.records), seed=0)
        shifts = dict.fromkeys((room // 2, 0, room, room // 4, 3 * room // 4))
        taken = [order[: max(count - i * len(order), 0)] for i in range(len(shifts))]
        numbers = np.concatenate(taken)
        shift = np.repeat(list(shifts), [len(part) for part in taken])
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
        """Those from `start` up to `stop`."""
        return np.stack([self.patch(index)[1] for index in range(start, min(stop, len(self)))])

    def cases(self) -> list[str]:
        """The case of each, as its slide's records tell."""
        slides = self.source.records.places[[number for number, _ in self.places], 0]
        first = dict(zip(slides.tolist()[::-1], [n for n, _ in self.places][::-1], strict=True))
        of_slide = {slide: self.source.told(number, "case") for slide, number in first.items()}
        return [of_slide[slide] for slide in slides.tolist()]

    def classes(self, labels: Labels) -> list[str]:
        """What each shows, or was recorded as. Raises ConfigError where records hold nothing."""
        if labels == "recorded":
            return recorded(self.source, self.places[:, 0].tolist())
        measure = Measure.of_run(self.source.context, labels)
        return [measure.most(self.patch(index)) for index in range(len(self))]


@dataclasses.dataclass(frozen=True)
class Measure:
    """What squares of a run show, whatever its prior is told."""

    name: measures.Name
    regions: region_conditions.RegionConditions

    @classmethod
    def of_run(cls, context: stage.Context, name: measures.Name) -> "Measure":
        """That of a name, on the slides of a run."""
        config = context.config
        nothing = dict.fromkeys(("labels", "numbers", "captions", "text_encoder"), "")
        asked = dataclasses.replace(config.prior.conditions, measure=name, **nothing)
        prior = dataclasses.replace(config.prior, conditions=asked)
        config = dataclasses.replace(config, prior=prior)
        context = dataclasses.replace(context, config=config)
        return cls(name, region_conditions.RegionConditions(context))

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
    names = [source.told(number, "label") for number in numbers]
    if not all(names):
        raise config_lib.ConfigError(
            "labels=recorded reads the classes of a list of patches, got "
            f"{names.count('')} of {len(names)} records of {source.split} without one"
        )
    return names


def numbered(names: Iterable[str]) -> Int[np.ndarray, "N"]:
    """A number for each name that differs."""
    return np.unique(np.array(list(names)), return_inverse=True)[1]
