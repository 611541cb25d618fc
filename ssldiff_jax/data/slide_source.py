"""Slides that a config names, as tasks for the archive, and what became of them."""

import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ssldiff_jax.core import arrays, schema
from ssldiff_jax.data import archive, cases, demo_slide, patch_list, plan, tiling
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data.precomputed import cells as imported_cells
from ssldiff_jax.slides import content, pyramid, remote, tissue
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib

_QUERIED_TOGETHER = 32  # slides: more would be turned away by some servers


def sources(data: data_config.DataConfig) -> list[str]:
    """Paths and addresses of the slides that a config names, sorted by kind and name.

    Raises SlideError when there is none, ConfigError where none are named.
    """
    if not data.slides:
        raise schema.ConfigError("config.data.slides must name slides or patches, got ''")
    if data.slides in demo_slide.PACKAGED:
        return [str(demo_slide.packaged(data.slides))]
    if not remote.is_remote(data.slides):
        return [str(path) for path in slide_lib.find_slides(data.slides)]
    parts = [part.strip() for part in data.slides.split(",")]
    local = [p for part in parts if not remote.is_remote(part) for p in slide_lib.find_slides(part)]
    far = [address for part in parts if remote.is_remote(part) for address in remote.find(part)]
    return [*map(str, local), *dict.fromkeys(far)]


def fingerprint(source: str) -> list[Any]:
    """Name, size and a hash of the content of a slide; size −1 where it cannot be read."""
    try:
        if remote.is_remote(source):
            return list(_answer(source))
        path = pathlib.Path(source)
        return [path.name, path.stat().st_size, content.digest(path)]
    except (OSError, slide_lib.SlideError):
        return [remote.name_of(source), -1]


@functools.cache
def _answer(source: str) -> tuple[Any, ...]:
    """Kept for a command: several of its checks ask."""
    return tuple(remote.fingerprint(source))


def query_again() -> None:
    """Query remote slides again: a command begins."""
    _answer.cache_clear()


def fingerprints(slides: Sequence[str]) -> list[list[Any]]:
    """Those of slides, in their order; remote ones are queried several at a time, as each answer
    takes a while."""
    with concurrent.futures.ThreadPoolExecutor(_QUERIED_TOGETHER) as pool:
        return list(pool.map(fingerprint, slides))


def tiling_config(data: data_config.DataConfig) -> tiling.TilingConfig:
    """What decides the records of a slide."""
    return tiling.TilingConfig(
        data.patch_mpp, data.tissue, data.holdout, data.records, data.regions,
        data.crops.patch_px, data.crops.context_px,
    )  # fmt: skip


def cases_of(
    data: data_config.DataConfig, images: patch_list.PatchList | None = None
) -> cases.Cases | None:
    """The cases of all slides, or of a list's images; None where rows are held out.

    Raises ConfigError where names have no cases to hold out.
    """
    if data.holdout.by != "case":
        return None
    if images is not None:
        return cases.Cases.of([images.name(i) for i in range(len(images))], data.holdout)
    return cases.Cases.of(list(map(remote.name_of, sources(data))), data.holdout)


def tasks(
    data: data_config.DataConfig,
    folder: pathlib.Path,
    images: patch_list.PatchList | None = None,
    known: imported_cells.ImportedCells | None = None,
) -> list[tiling.Task]:
    """A task for every slide, or for every image of a list; `known` finds the patches of slides
    whose embeddings were computed elsewhere.

    Slides of one name whose embeddings are found by it cannot be opened. Raises SlideError where
    the config lacks the microns per pixel of images, ConfigError for names that have no
    cases to hold out.
    """
    how = tiling_config(data)
    split = cases_of(data, images)

    def make(source: str, opener: Callable[[], slide_lib.Slide], facts: list[Any]) -> tiling.Task:
        return tiling.Task(
            source,
            opener,
            [facts, data.mpp, dataclasses.astuple(data.reading)],
            how,
            folder,
            known,
            known and known.section.fingerprint(),
            split and split.moved(remote.name_of(source)),
        )

    if images is not None:
        if not data.mpp:
            raise slide_lib.SlideError(
                f"expected microns per pixel of {images.source}: pass --config.data.mpp=<number>"
            )
        # Partials of functions of modules, since a task is pickled for another process.
        openers = [
            functools.partial(_open_image, data.slides, data.reading, i, data.mpp)
            for i in range(len(images))
        ]
        return [
            make(images.name(i), opener, [images.source, i]) for i, opener in enumerate(openers)
        ]
    named = sources(data)
    shared = _shared_names(named) if known else set()
    tasks_of_slides = []
    for source, facts in zip(named, fingerprints(named), strict=True):
        if pathlib.PurePath(source).stem in shared:
            opener = functools.partial(_refuse_shared_name, source)
            tasks_of_slides.append(make(source, opener, [*facts, "shared name"]))
        else:
            tasks_of_slides.append(make(source, _opener(source, data), facts))
    return tasks_of_slides


def _opener(source: str, data: data_config.DataConfig) -> Callable[[], slide_lib.Slide]:
    open_slide = remote.open_remote if remote.is_remote(source) else slide_lib.open_slide
    return functools.partial(open_slide, source, mpp=data.mpp or None, reading=data.reading)


def _open_image(
    spec: str, reading: reading_lib.ReadingConfig, number: int, mpp: float
) -> slide_lib.Slide:
    images = _open_list(spec, reading)
    return slide_lib.slide_of(images.name(number), images.read(number), mpp=mpp)


# Tasks travel to worker processes by the list's name: each opens it once for all its images.
_open_list = functools.lru_cache(1)(patch_list.open_list)


def _shared_names(slides: list[str]) -> set[str]:
    stems = collections.Counter(pathlib.PurePath(source).stem for source in slides)
    return {stem for stem, count in stems.items() if count > 1}


def _refuse_shared_name(source: str) -> slide_lib.Slide:
    raise slide_lib.SlideError(
        "slides must have names of their own to find their embeddings, got several called "
        f"{pathlib.PurePath(source).stem}"
    )


class UnreadableSlide(slide_lib.SlideError):
    """A slide that was tiled, and of which a held-out region cannot be read."""

    def __init__(self, number: int, reason: str):
        super().__init__(reason)
        self.number = number


def _marks(entry: archive.Entry) -> list[str]:
    """What copies of a slide share: its files, or how it looks where there is something to see."""
    look = entry.facts.get("look", "") if entry.count else ""
    return [entry.facts["identity"], *([look] if look else [])]


@dataclasses.dataclass(frozen=True)
class Tiled:
    """What became of the tasks: entries by the number of their slide, and why others have none."""

    tasks: list[tiling.Task]
    entries: dict[int, archive.Entry]
    quarantine: list[dict[str, str]]

    @classmethod
    def of(cls, tasks_of_slides: list[tiling.Task]) -> "Tiled":
        """The outcomes; of files that are the same only the first is used."""
        entries, quarantine, first_with_mark = {}, [], {}
        for number, task in enumerate(tasks_of_slides):
            outcome, name = task.outcome(), remote.printable(task.source)
            if isinstance(outcome, archive.Entry):
                marks = _marks(outcome)
                first = next(
                    (first_with_mark[mark] for mark in marks if mark in first_with_mark), name
                )
                first_with_mark |= dict.fromkeys(marks, first)
                if first == name:
                    entries[number] = outcome
                    continue
                outcome = f"the same pixels as {first}, which is used"
            reason = outcome or "the process that read it died without an error message"
            quarantine.append({"slide": name, "reason": reason})
        return cls(tasks_of_slides, entries, quarantine)

    def without(self, reasons: Mapping[int, str]) -> "Tiled":
        """The same, of which these slides are left out."""
        entries = {n: entry for n, entry in self.entries.items() if n not in reasons}
        lines = [
            {"slide": remote.printable(self.tasks[n].source), "reason": remote.printable(reason)}
            for n, reason in reasons.items()
        ]
        return Tiled(self.tasks, entries, self.quarantine + lines)

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
        """The cells of every reference. Raises UnreadableSlide."""
        for reference in references:
            number = reference.cells[0].slide
            try:
                with contextlib.closing(self.tasks[number].open()) as slide:
                    cells = [
                        slide.read_region(c.top, c.left, c.height, c.width, mpp=mpp)
                        for c in reference.cells
                    ]
            except (slide_lib.SlideError, OSError) as error:
                raise UnreadableSlide(number, " ".join(str(error).split())) from error
            yield cells

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
    pen = ImageDraw.Draw(image)
    height, _ = entry.facts["shape"]
    scale = image.height / height * config.patch_mpp / entry.facts["native_mpp"]
    if "test" in entry.facts["parts"]:
        top, bottom = (row * scale for row in entry.facts["parts"]["test"])
        _outline(pen, (1, top, image.width - 2, bottom - 2), (20, 90, 200))
    for reference in references:
        first, last, px = reference.cells[0], reference.cells[-1], config.cell_px
        box = (first.left, first.top, last.left + px, last.top + px)
        _outline(pen, tuple(value * scale for value in box), (200, 30, 30))
    return np.asarray(image)


def _outline(
    pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    if right >= left and bottom >= top:  # a slide may be a line
        pen.rectangle(box, outline=colour, width=2)
