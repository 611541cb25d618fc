"""Conditions of the regions of a run: measured in their pixels, or known of their case."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.data import crops, mosaic, patch_list, plan, slide_source
from ssldiff_jax.data.annotations import captions, case_tables, measures
from ssldiff_jax.encoders import text as text_lib
from ssldiff_jax.evaluation.features import clip_texts, zero_shot
from ssldiff_jax.formats import atomic
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import artifacts, stage
from ssldiff_jax.runs.config import prior as prior_config
from ssldiff_jax.slides import bands as bands_lib
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.weights.tables import text as text_weights

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RegionAnnotation:
    """The condition of a region: values of labels and of numbers (NaN: unknown), a caption."""

    labels: np.ndarray
    numbers: np.ndarray
    caption: str
    picture: arrays.ImageUint8 | None = None
    """The region itself, where it stands for a caption."""


class RegionLabels:
    """Conditions of the regions of a run."""

    def __init__(self, context: stage.Context):
        config, self._context = context.config, context
        self._data, self._asked = config.data, config.prior.conditions
        sources = self._asked
        self._labels = case_tables.Labels.read(sources.labels) if sources.labels else None
        self._numbers = None
        if sources.numbers:
            self._numbers = case_tables.Numbers.read(sources.numbers, self._training_cases())
        written = sources.captions if sources.captions not in ("measured", "images") else ""
        self._captions = case_tables.Captions.read(written) if written else None
        self._text = text_encoder(sources)
        for name, table in (
            ("labels", self._labels), ("numbers", self._numbers), ("captions", self._captions)
        ):  # fmt: skip
            if table is not None:
                self._warn_of_missing(name, table.of_case)

    @property
    def spec(self) -> conditions.ConditionSpec:
        """The parts of a condition."""
        labels = self._labels.names if self._labels else ()
        if self._asked.measure != "none":
            labels = measures.label_names(self._asked.measure)
        return conditions.ConditionSpec(
            labels,
            self._numbers.names if self._numbers else (),
            self._text.num_phrases if self._text else 0,
            self._text.dim if self._text else 0,
        )

    @property
    def scales(self) -> dict[str, list[float]]:
        """Mean and deviation of the numbers of training cases."""
        if self._numbers is None:
            return {"mean": [], "std": []}
        return {"mean": self._numbers.mean.tolist(), "std": self._numbers.std.tolist()}

    @property
    def see_pixels(self) -> bool:
        """Whether any condition is measured in the pixels of records."""
        return self._asked.measure == "stain" or self._asked.captions == "images"

    def of(
        self,
        region: mosaic.Region,
        pixels: arrays.ImageUint8 | None,
        generator: np.random.Generator,
        phrasing: captions.Phrasing,
    ) -> RegionAnnotation:
        """The condition of one region; `pixels` may be None where none are needed
        (`see_pixels`)."""
        case = self._case(region.square.slide)
        labels = self._labels.values(case) if self._labels else np.zeros(0, np.float32)
        numbers = self._numbers.values(case) if self._numbers else np.zeros(0, np.float32)
        caption = self._captions.choose(case, generator) if self._captions else ""
        if self._asked.measure != "none":
            parts = self._measured(region, pixels)
            labels = measures.label_values(parts)
            if self._asked.captions == "measured":
                names = measures.CLASSES[self._asked.measure]
                caption = captions.caption(names, parts, generator, phrasing)
        return RegionAnnotation(
            labels, numbers, caption, pixels if self._asked.captions == "images" else None
        )

    def pack(self, annotations: Sequence[RegionAnnotation], places: np.ndarray) -> np.ndarray:
        """The condition vectors of regions, of which grids at `places` are looked at."""
        spec, packed = self.spec, {"place": places}
        if spec.labels:
            packed["labels"] = np.stack([t.labels for t in annotations])
        if spec.numbers:
            packed["numbers"] = np.stack([t.numbers for t in annotations])
        if self._asked.captions == "images":
            encoded = self._text.of_images([t.picture for t in annotations])
            packed |= {"text": encoded.tokens, "text_known": encoded.known}
        elif self._text:
            has = np.array([bool(t.caption) for t in annotations])
            encoded = self._text([t.caption or "-" for t in annotations])
            packed["text"] = encoded.tokens
            packed["text_known"] = encoded.known & has[:, None]
        return spec.pack(len(annotations), **packed)

    def _training_cases(self) -> set[str]:
        """Those with a record to learn from."""
        slides = artifacts.records(self._context, "train").slides[:, 0]
        return {self._case(slide) for slide in slides.tolist()}

    def _case(self, slide: int) -> str:
        return plan.case_of(self._names[slide], self._data.holdout.case_regex)

    def _warn_of_missing(self, name: str, cases_of_file) -> None:
        cases = {self._case(slide) for slide in self._names}
        missing = sorted(cases - set(cases_of_file))
        if len(missing) == len(cases):
            raise case_tables.TableError(
                f"config.prior.conditions.{name} must have rows for cases of the slides, got none "
                f"of {len(cases)}, such as {missing[0]!r}; it has {next(iter(cases_of_file))!r}"
            )
        if missing:
            _LOG.warning("%s: the file lacks %d of %d cases, first %s: these have no such labels",
                         name, len(missing), len(cases), missing[0])  # fmt: skip

    def classes(self, region: mosaic.Region, pixels: arrays.ImageUint8 | None) -> measures.ClassMap:
        """The measured class of every pixel of a region."""
        name = self._asked.measure
        bands = pixels if name == "stain" else self._bands(region)
        return measures.MEASURES[name](bands)

    def _measured(self, region: mosaic.Region, pixels: arrays.ImageUint8 | None) -> np.ndarray:
        count = len(measures.CLASSES[self._asked.measure])
        return measures.quadrant_parts(self.classes(region, pixels), count)

    def _bands(self, region: mosaic.Region) -> np.ndarray:
        """All bands of a region, turned as it is: records have three only."""
        square = region.square
        path = pathlib.Path(self._paths[square.slide])
        window = (square.top, square.left, square.height, square.width)
        reading = self._data.reading
        bands = bands_lib.read(path, *window, factor=self._factor(path), reading=reading)
        return crops.orient(bands, region.orientation)

    def _factor(self, path: pathlib.Path) -> float:
        """Native pixels of a raster for one of a record."""
        if path not in self._factors:
            data = self._data
            raster = slide_lib.open_slide(path, mpp=data.mpp or None, reading=data.reading)
            self._factors[path] = raster.downsample(data.patch_mpp)
            raster.close()
        return self._factors[path]

    @functools.cached_property
    def _factors(self) -> dict[pathlib.Path, float]:
        return {}

    @functools.cached_property
    def _names(self) -> Mapping[int, str]:
        return _names(self._context)

    @functools.cached_property
    def _paths(self):
        return slide_source.sources(self._data)


def _names(context: stage.Context) -> Mapping[int, str]:
    """File names by the number of a slide, or of a patch in a list."""
    if artifacts.are_pages(context):
        data = context.config.data
        patches = patch_list.open_list(data.slides, data.reading)
        return {number: patches.name(number) for number in range(len(patches))}
    done = atomic.read_json(context.folder("patches") / "done.json")
    return {int(number): name for number, name in done["facts"]["slides"].items()}


def text_encoder(
    sources: prior_config.ConditionSourcesConfig,
) -> text_lib.PhraseEncoder | clip_texts.PairTexts | None:
    """What reads captions, where there are any."""
    if not sources.text_encoder:
        return None
    if sources.captions == "images":
        return clip_texts.PairTexts(zero_shot.open_pair(sources.text_encoder))
    encoder = text_weights.load_text_encoder(sources.text_encoder)
    return text_lib.PhraseEncoder(encoder, sources.text_phrases)
