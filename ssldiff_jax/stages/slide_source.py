"""Slides that a config names, as tasks for the archive, and what became of them."""

import concurrent.futures
import csv
import dataclasses
import functools
import io
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ssldiff_jax.core import arrays
from ssldiff_jax.core import config as config_lib
from ssldiff_jax.data import archive, demo_slide, patch_list, plan, tiling
from ssldiff_jax.slides import pyramid, remote, tissue
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import catalog, imported
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.weights import features

_LOG = logging.getLogger(__name__)

_ASKED_TOGETHER = 32  # slides: more would be turned away by some servers


def sources(data: run_config.DataConfig) -> list[str]:
    """Paths and addresses of the slides that a config names, sorted by kind and name.

    Raises SlideError when there is none, ConfigError where none are named.
    """
    if not data.slides:
        raise config_lib.ConfigError(catalog.NO_SLIDES)
    if data.slides in demo_slide.PACKAGED:
        return [str(demo_slide.packaged(data.slides))]
    if not remote.is_remote(data.slides):
        return [str(path) for path in slide_lib.find_slides(data.slides)]
    parts = [part.strip() for part in data.slides.split(",")]
    local = [p for part in parts if not remote.is_remote(part) for p in slide_lib.find_slides(part)]
    far = [address for part in parts if remote.is_remote(part) for address in remote.find(part)]
    return [*map(str, local), *dict.fromkeys(far)]


def fingerprint(source: str) -> list[Any]:
    """Name and size of a slide; size −1 where it cannot be asked."""
    try:
        if remote.is_remote(source):
            return remote.fingerprint(source)
        path = pathlib.Path(source)
        return [path.name, path.stat().st_size]
    except (OSError, slide_lib.SlideError):
        return [remote.name_of(source), -1]


def fingerprints(found: Sequence[str]) -> list[list[Any]]:
    """Those of slides, in their order; remote ones are asked several at a time, as each answer
    takes a while."""
    with concurrent.futures.ThreadPoolExecutor(_ASKED_TOGETHER) as pool:
        return list(pool.map(fingerprint, found))


def tiling_config(data: run_config.DataConfig) -> tiling.TilingConfig:
    """What decides the records of a slide."""
    return tiling.TilingConfig(
        data.patch_mpp, data.tissue, data.holdout, data.records, data.regions,
        data.crops.patch_px, data.crops.context_px,
    )  # fmt: skip


def tasks(
    config: run_config.RunConfig, folder: pathlib.Path, images: patch_list.PatchList | None = None
) -> list[tiling.Task]:
    """A task for every slide, or for every image of a list.

    Raises SlideError where the config does not tell the microns per pixel of images, WeightsError
    for slides of one name whose embeddings are found by it.
    """
    data, section = config.data, config.embeddings
    cells = ImportedCells(section, data) if section.source else None
    how = tiling_config(data)
    make = lambda source, opener, facts: tiling.Task(
        source, opener, [facts, data.mpp, dataclasses.astuple(data.reading)], how, folder, cells,
        section.fingerprint(),
    )  # fmt: skip
    if images is not None:
        if not data.mpp:
            raise slide_lib.SlideError(
                f"expected microns per pixel of {images.source}: pass --config.data.mpp=<number>"
            )
        opener = lambda i: functools.partial(_open_image, data.slides, data.reading, i, data.mpp)
        names = [images.name(i) for i in range(len(images))]
        return [make(name, opener(i), [images.source, i]) for i, name in enumerate(names)]
    found = sources(data)
    if cells:
        _require_own_names(found)
    options = {"mpp": data.mpp or None, "reading": data.reading}
    opener = lambda s: functools.partial(
        remote.open_remote if remote.is_remote(s) else slide_lib.open_slide, s, **options
    )
    told = zip(found, fingerprints(found), strict=True)
    return [make(source, opener(source), facts) for source, facts in told]


def _open_image(
    spec: str, reading: reading_lib.ReadingConfig, number: int, mpp: float
) -> slide_lib.Slide:
    images = _open_list(spec, reading)
    return slide_lib.slide_of(images.name(number), images.read(number), mpp=mpp)


_open_list = functools.lru_cache(1)(patch_list.open_list)


def _require_own_names(found: list[str]) -> None:
    stems = [pathlib.PurePath(source).stem for source in found]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise features.WeightsError(
            f"slides must have names of their own to find their embeddings, got several called "
            f"{min(twice)}"
        )


@dataclasses.dataclass(frozen=True)
class ImportedCells:
    """Finds the patches of a slide that embeddings computed elsewhere tell of."""

    section: imported.EmbeddingsSection
    data: run_config.DataConfig

    def __call__(
        self, slide: slide_lib.Slide, parts: Mapping[str, tuple[int, int]]
    ) -> tiling.Cells:
        """Patches that lie, with context, within the rows of a split.

        Raises SlideError for a slide without embeddings, WeightsError for those that do not fit.
        """
        values = self.section.of_slide(slide.path.name)
        if values is None:
            raise slide_lib.SlideError(
                "expected files of embeddings named as the slides are, got none for "
                f"{slide.path.name}"
            )
        data = self.data
        scale = slide.downsample(data.patch_mpp)
        px, context = data.crops.patch_px, data.crops.context_px
        width = slide.shape_at(data.patch_mpp)[1]
        _check_corners(values, slide, px * scale)
        lefts, tops = np.round(values.corners / scale).astype(int).T
        within = (lefts - context >= 0) & (lefts + px + context <= width)
        found = {}
        for split, (first, last) in parts.items():
            here = within & (tops - context >= first) & (tops + px + context <= last)
            found[split] = [
                plan.Square(0, int(tops[i]), int(lefts[i]), px, px, int(i))
                for i in np.flatnonzero(here)
            ]
        used = sum(map(len, found.values()))
        if used < len(values):
            _LOG.warning("%s: %d of %d patches cross a border and are left out",
                         values.path, len(values) - used, len(values))  # fmt: skip
        return found


def some_cells(task: tiling.Task, count: int) -> list[tuple[plan.Square, arrays.ImageUint8]]:
    """Some of the training patches of a slide that are known already, and their pixels; of a slide
    that cannot be used, none."""
    config, mpp = task.config, task.config.patch_mpp
    try:
        slide = task.open()
        try:
            parts = plan.parts(slide, config.holdout, mpp)
            cells = task.find_cells(slide, parts).get("train", [])
            chosen = np.random.default_rng(0).permutation(len(cells))[:count]
            squares = [plan.grown(cells[i], config.context_px) for i in chosen]
            read = lambda s: slide.read_region(s.top, s.left, s.height, s.width, mpp=mpp)
            return [(square, read(square)) for square in squares]
        finally:
            slide.close()
    except slide_lib.SlideError:
        return []


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


@dataclasses.dataclass(frozen=True)
class Tiled:
    """What became of the tasks: entries by the number of their slide, and why others have none."""

    tasks: list[tiling.Task]
    entries: dict[int, archive.Entry]
    quarantine: list[dict[str, str]]

    @classmethod
    def of(cls, found: list[tiling.Task]) -> "Tiled":
        """The outcomes; of files that are the same only the first is used."""
        entries, quarantine, seen = {}, [], {}
        for number, task in enumerate(found):
            outcome = task.outcome()
            if isinstance(outcome, archive.Entry):
                first = seen.setdefault(outcome.facts["identity"], task.source)
                if first == task.source:
                    entries[number] = outcome
                    continue
                outcome = f"the same pixels as {first}, which is used"
            reason = outcome or "its process ended without a word"
            quarantine.append({"slide": task.source, "reason": reason})
        return cls(found, entries, quarantine)

    @property
    def names(self) -> dict[int, str]:
        """File names by the number of a slide."""
        return {number: entry.name for number, entry in self.entries.items()}

    def as_csv(self) -> str:
        """A line for every slide: what it is, how many records it gave, what it is made of."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        kinds, splits = tissue.KINDS, ("train", "test")
        rows.writerow(["number", "slide", "case", "mpp", "height", "width", *splits, *kinds])
        for number, entry in self.entries.items():
            facts = entry.facts
            counts = [sum(s.count for s in entry.shards.get(split, ())) for split in splits]
            parts = [f"{facts['tissue'][kind]:.4f}" for kind in kinds]
            about = [number, entry.name, facts["case"], f"{facts['native_mpp']:g}"]
            rows.writerow([*about, *facts["shape"], *counts, *parts])
        return text.getvalue()

    def references(self, config: tiling.TilingConfig) -> list[plan.Reference]:
        """The held-out regions with most tissue."""
        px = config.cell_px
        candidates = [
            (region["tissue"], number, region["cells"])
            for number, entry in self.entries.items()
            for region in entry.facts["regions"]
        ]
        candidates.sort(key=lambda item: -item[0])
        return [
            plan.Reference(
                tuple(plan.Square(number, top, left, px, px, row) for top, left, row in cells),
                config.regions.cols,
                "region",
            )
            for _, number, cells in candidates[: config.regions.count]
        ]

    def pixels(
        self, references: list[plan.Reference], mpp: float
    ) -> Iterator[list[arrays.ImageUint8]]:
        """The cells of every reference."""
        for reference in references:
            slide = self.tasks[reference.cells[0].slide].open()
            try:
                yield [
                    slide.read_region(c.top, c.left, c.height, c.width, mpp=mpp)
                    for c in reference.cells
                ]
            finally:
                slide.close()

    def overviews(
        self, references: list[plan.Reference], config: tiling.TilingConfig
    ) -> Iterator[tuple[int, arrays.ImageUint8]]:
        """The first slides and all with regions, small: held-out part and regions outlined."""
        shown = {r.cells[0].slide for r in references} | set(list(self.entries)[:_SHOWN])
        for number in sorted(shown):
            here = [r for r in references if r.cells[0].slide == number]
            yield number, _outlined(self.entries[number], here, config)


_SHOWN = 24


def _outlined(
    entry: archive.Entry, references: list[plan.Reference], config: tiling.TilingConfig
) -> arrays.ImageUint8:
    picture = pyramid.read_image(entry.folder / "overview.png")
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    height, _ = entry.facts["shape"]
    scale = image.height / height * config.patch_mpp / entry.facts["native_mpp"]
    if "test" in entry.facts["parts"]:
        top, bottom = (row * scale for row in entry.facts["parts"]["test"])
        draw.rectangle((1, top, image.width - 2, bottom - 2), outline=(20, 90, 200), width=2)
    for reference in references:
        first, last, px = reference.cells[0], reference.cells[-1], config.cell_px
        box = (first.left, first.top, last.left + px, last.top + px)
        draw.rectangle([value * scale for value in box], outline=(200, 30, 30), width=2)
    return np.asarray(image)
