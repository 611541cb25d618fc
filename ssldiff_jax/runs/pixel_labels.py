"""What squares of slides show, measured in their pixels."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import crops, mosaic, plan
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.slides import remote
from ssldiff_jax.slides.protocol import SlideError

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PixelLabels:
    """A measure of pixels, on the slides that `data` names; or the classes that a user marked.

    Raises ConfigError where these are asked for, and none are named.
    """

    name: measures.Name | Literal["annotations"]
    data: data_config.DataConfig
    # Gives file names of slides by their numbers, as they were when records were cut; None: as now.
    # Asked for when a slide is read, which a list of patches has none of.
    slide_names: Callable[[], Mapping[int, str]] | None = None

    def __post_init__(self):
        bands = self.data.reading.multiband
        if self.name == "landcover" and bands.is_used and not bands.has_infrared:
            raise schema.ConfigError(
                "config.data.reading.multiband.names must have red, green, blue and infrared where "
                f"land cover is measured, got {bands.names}"
            )
        if self.name == measures.ANNOTATIONS:
            self.data.annotations.require_classes(
                "labels by annotations", in_table=self.data.is_table
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return measures.class_names(self.name, self.data.annotations.classes)

    @property
    def see_pixels(self) -> bool:
        """Whether the pixels of records suffice: for colours always, for land cover where records
        have infrared."""
        return self.name in measures.OF_COLOURS or (
            self.name == "landcover" and self.data.reading.multiband.has_infrared
        )

    def classes(self, region: mosaic.Region, pixels: arrays.Pixels | None) -> measures.ClassMap:
        """The class of every pixel of a region; `pixels` may be None where `see_pixels` is not."""
        if self.name == measures.ANNOTATIONS:
            return self._marked(region)
        values = self._seen(pixels) if self.see_pixels else self._bands(region)
        return measures.MEASURES[self.name](values)

    def _seen(self, pixels: arrays.Pixels) -> measures.Bands:
        """What is measured of pixels of records, or of what is generated."""
        multiband = self.data.reading.multiband
        if self.name == "landcover":
            return multiband.of_land(pixels)
        return multiband.shown_view(pixels)

    def quadrants(self, region: mosaic.Region, pixels: arrays.Pixels | None) -> np.ndarray:
        """The part of every class in the quadrants of a region."""
        return measures.quadrant_parts(self.classes(region, pixels), len(self.names))

    def shown(self, square: plan.Square, pixels: arrays.Pixels) -> Float[np.ndarray, "K"]:
        """The part of every class of pixels in a square."""
        classes = self.classes(mosaic.Region(square, 0, 0, 0, 1), pixels)
        return np.bincount(classes.ravel(), minlength=len(self.names)) / classes.size

    def most(self, square: plan.Square, pixels: arrays.Pixels) -> str:
        """The class that most pixels of a square have."""
        return self.names[self.shown(square, pixels).argmax()]

    def _marked(self, region: mosaic.Region) -> measures.ClassMap:
        """The class of the last polygon that holds a pixel's centre; else the number after all."""
        # Not at the top: a machine that only computes need not have it.
        from ssldiff_jax.slides import rasterised

        square = region.square
        factor, shapes = self._factor(square.slide), self._shapes(square.slide)
        place = (square.top * factor, square.left * factor)
        shape = (square.height, square.width)
        count = len(self.data.annotations.classes)
        window = rasterised.window(shapes, place, shape, factor)
        classes = rasterised.burnt(window, place, shape, factor, below=count)
        return crops.orient(classes.astype(int), region.orientation)

    def _shapes(self, number: int) -> list[tuple[Any, int]]:
        """Polygons of a slide, px of level 0, and numbers of their classes, in that order."""
        if number not in self._shapes_of:
            slide, regions = self._slide(number), None
            marks = self._marks.get(slide.source)
            if marks and marks.regions:
                with contextlib.closing(slide.opener()) as opened:
                    regions = marks.regions_of(opened)
            self._shapes_of[number] = found = [
                (feature.geometry, place)
                for place, name in enumerate(self.data.annotations.classes)
                for feature in (regions.of_classes((name,)) if regions else ())
            ]
            if regions and regions.features and not found:
                _LOG.warning(
                    "%s: no polygon is of config.data.annotations.classes=%s, got %s: all of %s is "
                    "%s", regions.path, self.data.annotations.classes, list(regions.counts)[:8],
                    remote.name_of(slide.source), measures.UNMARKED,
                )  # fmt: skip
        return self._shapes_of[number]

    @functools.cached_property
    def _shapes_of(self) -> dict[int, list[tuple[Any, int]]]:
        return {}

    @functools.cached_property
    def _marks(self):
        from ssldiff_jax.data import slide_source

        return slide_source.marks_of(self.data)

    def _bands(self, region: mosaic.Region) -> np.ndarray:
        """All bands of a region, turned as it is: records have three only."""
        # Not at the top: a machine that only computes can open no slides.
        from ssldiff_jax.slides import bands as bands_lib

        square = region.square
        slide = self._slide(square.slide)
        path = pathlib.Path(slide.source)
        place = (square.top, square.left, square.height, square.width)
        bands = bands_lib.read(
            path, *place, factor=self._factor(square.slide), reading=slide.reading
        )
        # Turned as the record's pixels were, so that quadrants are the same ones.
        return crops.orient(bands, region.orientation)

    def _factor(self, number: int) -> float:
        """Native pixels of a slide for one of a record."""
        if number not in self._factors:
            with contextlib.closing(self._slide(number).opener()) as raster:
                self._factors[number] = raster.downsample(self.data.patch_mpp)
        return self._factors[number]

    @functools.cached_property
    def _factors(self) -> dict[int, float]:
        return {}

    def _slide(self, number: int):
        """The slide of a number, found by its name: numbers move as slides come and go."""
        if self.slide_names is None:
            return self._slides[number]
        name = self._names[number]
        same = [s for s in self._slides if remote.printable(remote.name_of(s.source)) == name]
        if len(same) > 1 and number < len(self._slides):
            same = [s for s in same if s is self._slides[number]]
        if len(same) != 1:
            raise SlideError(
                f"config.data.slides must name {name} once, as when records were cut, got "
                f"{len(same)} slides of that name"
            )
        return same[0]

    @functools.cached_property
    def _names(self) -> Mapping[int, str]:
        return self.slide_names()

    @functools.cached_property
    def _slides(self):
        from ssldiff_jax.data import named_slides

        return named_slides.slides(self.data)
