"""Records from slides: squares of tissue, or the places that embeddings computed elsewhere have."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw

from ssldiff_jax.core import arrays
from ssldiff_jax.data import demo_slide, patch_list, plan
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides import tissue
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.weights import features

_LOG = logging.getLogger(__name__)

_OVERVIEW_MPP = 4.0
_OPEN_FEATURES = 32

OpenSlide = Callable[[], slide_lib.Slide]
FindFeatures = Callable[[str], features.Features | None]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A slide, its tissue, and the rows of it that belong to each split."""

    slide: slide_lib.Slide
    mask: tissue.TissueMask
    parts: dict[str, tuple[int, int]]
    width: int


def paths(data: run_config.DataConfig) -> list[pathlib.Path]:
    """The slides a config names.

    Raises SlideError when there is none.
    """
    if data.slides == "demo":
        return [demo_slide.demo_slide()]
    return slide_lib.find_slides(data.slides)


def openers(data: run_config.DataConfig) -> list[tuple[str, OpenSlide]]:
    """Every slide that a config names, and how it is opened."""
    opener = lambda path: lambda: slide_lib.open_slide(path, mpp=data.mpp or None)
    return [(str(path), opener(path)) for path in paths(data)]


def openers_of(
    images: patch_list.PatchList, data: run_config.DataConfig
) -> list[tuple[str, OpenSlide]]:
    """Every image of a list as a slide.

    Raises SlideError where the config does not tell their microns per pixel.
    """
    if not data.mpp:
        raise slide_lib.SlideError(
            f"expected microns per pixel of {images.source}: pass --config.data.mpp=<number>"
        )
    opener = lambda i: lambda: slide_lib.slide_of(images.name(i), images.read(i), mpp=data.mpp)
    return [(images.name(i), opener(i)) for i in range(len(images))]


class OpenSlides:
    """Opened slides, and what of them becomes records."""

    def __init__(
        self,
        data: run_config.DataConfig,
        slides: list[tuple[str, OpenSlide]],
        embeddings: FindFeatures | None = None,
    ):
        self._data = data
        self._slides, self._skipped = _prepare(data, slides)
        # Opened again where they are needed: every slide is open already.
        self._reopened = functools.lru_cache(_OPEN_FEATURES)(embeddings or (lambda name: None))
        self._cells = self._find_cells() if embeddings else {}

    def source(self) -> plan.Source:
        """Squares of both splits, and as many held-out regions as there are of those wanted: with
        most tissue, or with all their cells among the embeddings."""
        data, px = self._data, self._data.crops.patch_px
        size = (data.regions.rows * px, data.regions.cols * px)
        splits: dict[str, list[plan.Square]] = {"train": [], "test": []}
        candidates: list[tuple[float, plan.Square]] = []
        cells: list[plan.Square] = []
        for number, p in self._slides.items():
            for split, rows in p.parts.items():
                args = (number, rows, p.width, p.mask)
                if self._cells:
                    found = self._cells[number][split]
                    splits[split] += [plan.grown(cell, data.crops.context_px) for cell in found]
                    whole = plan.whole_regions(found, size, px)
                else:
                    splits[split] += plan.squares(*args, data.records, data.patch_mpp)
                    found, whole = [], plan.regions(*args, data.regions, size, data.patch_mpp)
                if split == "test":
                    candidates += whole
                    cells += found
        candidates.sort(key=lambda item: -item[0])
        regions = plan.pick_apart(candidates, data.regions.count)
        references = [plan.Reference.region(square, px, cells) for square in regions]
        names = {number: p.slide.path.name for number, p in self._slides.items()}
        return plan.Source(self.read, splits, references, names, self._skipped)

    def read(self, square: plan.Square) -> arrays.ImageUint8:
        """The pixels of a square."""
        return self._slides[square.slide].slide.read_region(
            square.top, square.left, square.height, square.width, mpp=self._data.patch_mpp
        )

    def features_of(self, number: int) -> features.Features:
        """The embeddings of a slide."""
        return self._reopened(self._slides[number].slide.path.name)

    def overviews(self, references: list[plan.Reference]) -> Iterator[tuple[int, np.ndarray]]:
        """Every slide, small, with its held-out part and regions outlined."""
        for number, p in self._slides.items():
            here = [r for r in references if r.cells[0].slide == number]
            yield number, _overview(p, here, self._data)

    def close(self) -> None:
        """Release all files."""
        self._reopened.cache_clear()
        for p in self._slides.values():
            p.slide.close()

    def _find_cells(self) -> dict[int, dict[str, list[plan.Square]]]:
        """The patches that embeddings tell of, by slide and split; slides without are skipped."""
        found, dims = {}, {}
        stems = [p.slide.path.stem for p in self._slides.values()]
        twice = {stem for stem in stems if stems.count(stem) > 1}
        if twice:
            raise features.WeightsError(
                f"slides must have names of their own to find their embeddings, got several called "
                f"{min(twice)}"
            )
        for number, p in list(self._slides.items()):
            values = self.features_of(number)
            if values is None:
                reason = f"no file of embeddings for {p.slide.path.name}"
                _LOG.warning("skipped: %s", reason)
                self._skipped.append({"slide": str(p.slide.path), "reason": reason})
                self._slides.pop(number).slide.close()
            else:
                found[number] = _cells(number, p, values, self._data)
                dims.setdefault(values.dim, values)
        if not found:
            raise features.WeightsError(
                f"expected files of embeddings named as the slides are, got none; the first: "
                f"{self._skipped[-1]['reason']}"
            )
        if len(dims) > 1:
            one, other, *_ = dims.values()
            raise features.WeightsError(
                f"{other} must have {one.dim} dimensions as {one}, got {other.dim}"
            )
        return found


def _cells(
    number: int, p: Prepared, values: features.Features, data: run_config.DataConfig
) -> dict[str, list[plan.Square]]:
    """The patches of a slide's embeddings that lie, with context, within the rows of a split."""
    scale = p.slide.downsample(data.patch_mpp)
    px, context = data.crops.patch_px, data.crops.context_px
    _check_corners(values, p.slide, px * scale)
    lefts, tops = np.round(values.corners / scale).astype(int).T
    within = (lefts - context >= 0) & (lefts + px + context <= p.width)
    found = {}
    for split, (first, last) in p.parts.items():
        here = within & (tops - context >= first) & (tops + px + context <= last)
        found[split] = [
            plan.Square(number, int(tops[i]), int(lefts[i]), px, px, int(i))
            for i in np.flatnonzero(here)
        ]
    used = sum(map(len, found.values()))
    if used < len(values):
        _LOG.warning("%s: %d of %d patches cross a border and are left out",
                     values.path, len(values) - used, len(values))  # fmt: skip
    return found


def _check_corners(values: features.Features, slide: slide_lib.Slide, wanted: float) -> None:
    height, width = slide.shape
    x, y = values.corners.T
    outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise features.WeightsError(
            f"{values.path}: coords must lie inside {slide.path.name} ({width} × {height} px, x "
            f"first), got {values.corners[row].tolist()} in row {row}"
        )
    if values.patch_px and abs(values.patch_px / wanted - 1) > slide_lib.MPP_TOLERANCE:
        raise features.WeightsError(
            f"{values.path}: patches must have {wanted:g} px of {slide.path.name}'s full "
            "resolution (config.data.crops.patch_px at config.data.patch_mpp), got "
            f"{values.patch_px}"
        )


def _prepare(
    data: run_config.DataConfig, slides: list[tuple[str, OpenSlide]]
) -> tuple[dict[int, Prepared], list[dict[str, str]]]:
    prepared, skipped = {}, []
    for number, (name, open_slide) in enumerate(slides):
        try:
            slide = open_slide()
            mask = tissue.tissue_mask(slide, data.tissue)
            parts = plan.parts(slide, data.holdout, data.patch_mpp)
            prepared[number] = Prepared(slide, mask, parts, slide.shape_at(data.patch_mpp)[1])
        except slide_lib.SlideError as error:
            _LOG.warning("skipped: %s", error)
            skipped.append({"slide": name, "reason": str(error)})
    if not prepared:
        raise slide_lib.SlideError(f"no slide could be used; the first: {skipped[0]['reason']}")
    return prepared, skipped


def _overview(
    p: Prepared, references: list[plan.Reference], data: run_config.DataConfig
) -> np.ndarray:
    """The slide, small: what is no tissue pale, the held-out part and its regions outlined."""
    mpp = max(_OVERVIEW_MPP, p.slide.mpp)
    height, width = p.slide.shape_at(mpp)
    pixels = p.slide.read_region(0, 0, height, width, mpp=mpp).astype(np.float32)
    mask = Image.fromarray(p.mask.mask).resize((width, height), Image.Resampling.NEAREST)
    pale = 0.25 * pixels + 0.75 * 245
    image = Image.fromarray(np.where(np.asarray(mask)[..., None], pixels, pale).astype(np.uint8))
    draw, scale = ImageDraw.Draw(image), data.patch_mpp / mpp
    if "test" in p.parts:
        top, bottom = (row * scale for row in p.parts["test"])
        draw.rectangle((1, top, width - 2, bottom - 2), outline=(20, 90, 200), width=2)
    for reference in references:
        first, last, px = reference.cells[0], reference.cells[-1], data.crops.patch_px
        box = (first.left, first.top, last.left + px, last.top + px)
        draw.rectangle([value * scale for value in box], outline=(200, 30, 30), width=2)
    return np.asarray(image)
