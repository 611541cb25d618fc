"""Conditions of the regions of a run: measured in their pixels, or known of their case."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from ssldiff_jax.core import arrays, spelling
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import mosaic
from ssldiff_jax.data.annotations import captions, case_tables, measures
from ssldiff_jax.encoders import text as text_lib
from ssldiff_jax.evaluation.features import clip_texts, zero_shot
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import pixel_labels
from ssldiff_jax.runs.config import prior as prior_config
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


@dataclasses.dataclass(frozen=True, eq=False)
class CaseTables:
    """What files know of cases; None where there is no such file."""

    labels: case_tables.Labels | None
    numbers: case_tables.Numbers | None
    captions: case_tables.Captions | None

    @classmethod
    def read(
        cls,
        sources: prior_config.ConditionSourcesConfig,
        cases: Collection[str],
        training: Collection[str],
        slides: Callable[[], Mapping[str, frozenset[str]]] | None = None,
    ) -> "CaseTables":
        """The files that `sources` names; numbers are standardised by `training` cases. `slides`
        knows the cases of slides by their names, where labels may be by slide.

        Raises TableError for a file that knows none of `cases`; a warning names what it lacks.
        """
        # These two are made of pixels, and have no file.
        captions = "" if sources.captions in ("measured", "images") else sources.captions
        tables = cls(
            case_tables.Labels.read(sources.labels, slides) if sources.labels else None,
            case_tables.Numbers.read(sources.numbers, training) if sources.numbers else None,
            case_tables.Captions.read(captions) if captions else None,
        )
        for field in dataclasses.fields(tables):
            table = getattr(tables, field.name)
            if table is not None:
                _warn_of_missing(field.name, set(cases), table.of_case)
        return tables


@dataclasses.dataclass(frozen=True, eq=False)
class RegionLabels:
    """Conditions of regions.

    Attributes:
        sources: where they come from.
        measure: of their pixels, where there is one.
        tables: of their cases.
        texts: reads captions, where there are any.
        case_of: slides by their numbers.
    """

    sources: prior_config.ConditionSourcesConfig
    measure: pixel_labels.PixelLabels | None
    tables: CaseTables
    texts: text_lib.PhraseEncoder | clip_texts.PairTexts | None
    case_of: Mapping[int, str]

    @classmethod
    def read(
        cls,
        sources: prior_config.ConditionSourcesConfig,
        data: data_config.DataConfig,
        case_of: Mapping[int, str],
        training_slides: Iterable[int],
        slide_names: Callable[[], Mapping[int, str]] | None = None,
    ) -> "RegionLabels":
        """Those that `sources` name, on the slides of `data`, whose cases are given by number;
        `training_slides` have a record to learn from, and `slide_names` are those of the files as
        records were cut."""
        training = {case_of[slide] for slide in training_slides}
        measure = None
        if sources.measure != "none":
            measure = pixel_labels.PixelLabels(sources.measure, data, slide_names)
        by_slide = None
        if slide_names is not None:
            by_slide = lambda: case_tables.cases_by_slide(
                (name, case_of[number]) for number, name in slide_names().items()
                if number in case_of
            )  # fmt: skip
        tables = CaseTables.read(sources, case_of.values(), training, by_slide)
        return cls(sources, measure, tables, text_encoder(sources), case_of)

    @property
    def spec(self) -> conditions.ConditionSpec:
        """The parts of a condition."""
        labels, areas = self.tables.labels.names if self.tables.labels else (), ()
        if self.measure:
            name, marked = self.measure.name, self.measure.data.annotations.classes
            labels = measures.label_names(name, marked)
            areas = measures.label_areas(name, marked)
        return conditions.ConditionSpec(
            labels,
            self.tables.numbers.names if self.tables.numbers else (),
            self.texts.num_phrases if self.texts else 0,
            self.texts.dim if self.texts else 0,
            reads_labels=bool(self.texts) and self.sources.captions == "measured",
            areas=areas,
        )

    @property
    def scales(self) -> dict[str, list[float]]:
        """Mean and deviation of the numbers of training cases."""
        numbers = self.tables.numbers
        if numbers is None:
            return {"mean": [], "std": []}
        return {"mean": numbers.mean.tolist(), "std": numbers.std.tolist()}

    @property
    def see_pixels(self) -> bool:
        """Whether any condition is measured in the pixels of records."""
        return bool(self.measure and self.measure.see_pixels) or self._has_pictures

    @property
    def _has_pictures(self) -> bool:
        return self.sources.captions == "images"

    def of(
        self,
        region: mosaic.Region,
        pixels: arrays.ImageUint8 | None,
        generator: np.random.Generator,
        phrasing: captions.Phrasing,
    ) -> RegionAnnotation:
        """The condition of one region; `pixels` may be None where none are needed
        (`see_pixels`)."""
        case, tables = self.case_of[region.square.slide], self.tables
        labels = tables.labels.values(case) if tables.labels else np.zeros(0, np.float32)
        numbers = tables.numbers.values(case) if tables.numbers else np.zeros(0, np.float32)
        caption = tables.captions.choose(case, generator) if tables.captions else ""
        if self.measure:
            parts = self.measure.quadrants(region, pixels)
            labels = measures.label_values(parts)
            if self.sources.captions == "measured":
                lopsided = measures.LOPSIDED[self.measure.name]
                caption = captions.caption(
                    self.measure.names, parts, generator, phrasing, lopsided=lopsided
                )
        picture = pixels if self._has_pictures else None
        return RegionAnnotation(labels, numbers, caption, picture)

    def pack(self, annotations: Sequence[RegionAnnotation], places: np.ndarray) -> np.ndarray:
        """The condition vectors of regions, of which grids at `places` are looked at."""
        spec, packed = self.spec, {"place": places}
        if spec.labels:
            packed["labels"] = np.stack([one.labels for one in annotations])
        if spec.numbers:
            packed["numbers"] = np.stack([one.numbers for one in annotations])
        if self._has_pictures:
            encoded = self.texts.of_images([one.picture for one in annotations])
            packed |= {"text": encoded.tokens, "text_known": encoded.known}
        elif self.texts:
            has = np.array([bool(one.caption) for one in annotations])
            # An encoder takes no empty text: what it makes of the dash counts as unknown.
            encoded = self.texts([one.caption or "-" for one in annotations])
            packed["text"] = encoded.tokens
            packed["text_known"] = encoded.known & has[:, None]
        return spec.pack(len(annotations), **packed)


def _warn_of_missing(name: str, cases: Collection[str], known: Collection[str]) -> None:
    # None at all is a misspelt column or another cohort; some are usual.
    missing = sorted(case for case in set(cases) if spelling.same(case) not in known)
    if len(missing) == len(set(cases)):
        raise case_tables.TableError(
            f"config.prior.conditions.{name} must have rows for cases of the slides, got none "
            f"of {len(cases)}, such as {missing[0]!r}; it has {next(iter(known))!r}"
        )
    if missing:
        _LOG.warning("%s: the file lacks %d of %d cases, first %s: these have no such labels",
                     name, len(missing), len(cases), missing[0])  # fmt: skip


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
