"""What became of the slides that were tiled: entries, what could not be used, references."""

import collections
import contextlib
import dataclasses
import functools
import io
import pathlib
import shutil
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw

from ssldiff_jax.core import arrays
from ssldiff_jax.data import archive, csv_cells, plan, tiling
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import pyramid, remote, tissue
from ssldiff_jax.slides import slide as slide_lib

_SHOWN = 24  # slides with an overview, besides those with references


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
                # By the first mark that an earlier slide had: copies may share files, or only how
                # they look.
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

    @property
    def validation(self) -> tuple[str, ...]:
        """The split of that name, where slides are in it."""
        has_any = any("validation" in entry.facts["parts"] for entry in self.entries.values())
        return ("validation",) if has_any else ()

    @property
    def marked(self) -> str:
        """How many polygons decide the tissue, or are labels alone, and of how many slides; "" for
        none. Entries of earlier code say nothing of theirs."""
        counts: collections.Counter[str] = collections.Counter()
        of_slides = [e.facts["polygons"] for e in self.entries.values() if "polygons" in e.facts]
        for of_slide in of_slides:
            counts.update(of_slide)
        tasks = [self.tasks[number] for number in self.entries]
        labels = sum(bool(t.about.annotations and t.marks is None) for t in tasks)
        of_classes = ", ".join(
            f"{name!r} ({count})" if name else f"without a class ({count})"
            for name, count in counts.most_common()
        )
        told = f"{counts.total()} polygons count for {len(of_slides)} of {len(tasks)} slides: "
        also = f"polygons of {labels} of {len(tasks)} slides are labels alone, and decide no tissue"
        return "; ".join([told + of_classes] * bool(of_slides) + [also] * bool(labels))

    def as_csv(self) -> str:
        """A line for every slide: what it is, how many records it gave, what it is made of."""
        text = io.StringIO()
        rows = csv_cells.Writer(text)
        kinds, splits = tissue.KINDS, ("train", "test", *self.validation)
        rows.row(["number", "slide", "case", "mpp", "height", "width", *splits, *kinds])
        for number, entry in self.entries.items():
            facts = entry.facts
            counts = [sum(s.count for s in entry.shards.get(split, ())) for split in splits]
            parts = [f"{facts['tissue'][kind]:.4f}" for kind in kinds]
            about = [number, entry.name, facts["case"], f"{facts['native_mpp']:g}"]
            rows.row([*about, *facts["shape"], *counts, *parts])
        return text.getvalue()

    def as_table(self) -> str:
        """A table of the slides that were used, which `data.slide_table` reads: what was asked for
        each, and its split where it lies in one alone."""
        text = io.StringIO()
        rows = csv_cells.Writer(text)
        splits = {number: list(e.facts["parts"]) for number, e in self.entries.items()}
        has_splits = all(len(names) == 1 for names in splits.values())
        columns = ["slide", "mpp", "case", "label", "reading", "annotations", "mask"]
        rows.row([*columns, *(["split"] if has_splits else [])])
        for number, entry in self.entries.items():
            facts, split = entry.facts, splits[number] if has_splits else []
            about = [facts["case"], facts.get("label", "")]
            rows.row([*self.tasks[number].asked(*about), *split])
        return text.getvalue()

    def references(self, config: tiling.TilingConfig) -> list[plan.Reference]:
        """The held-out regions with most tissue."""
        px = config.cell_px
        candidates = [
            (region["tissue"], number, region["cells"])
            for number, entry in self.entries.items()
            for region in entry.facts["regions"]
        ]
        # A stable sort: equal ones keep the order of their slides.
        candidates.sort(key=lambda item: -item[0])
        return [
            plan.Reference(
                tuple(plan.Square(number, top, left, px, px, row) for top, left, row in cells),
                config.regions.cols,
                "region",
            )
            for _, number, cells in candidates[: config.regions.count]
        ]

    def pixels(self, references: list[plan.Reference], mpp: float) -> Iterator[list[arrays.Pixels]]:
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

    def write_tissue(self, folder: pathlib.Path) -> None:
        """Write the tissue of every slide, NAME.geojson; entries of earlier code have none."""
        shutil.rmtree(folder, ignore_errors=True)
        stems = collections.Counter(
            pathlib.PurePath(entry.name).stem for entry in self.entries.values()
        )
        for number, entry in self.entries.items():
            stem = pathlib.PurePath(entry.name).stem
            # Slides of one name in several folders.
            name = f"{stem}.geojson" if stems[stem] == 1 else f"{stem}_{number}.geojson"
            if (entry.folder / tiling.TISSUE).exists():
                write = functools.partial(shutil.copyfile, entry.folder / tiling.TISSUE)
                atomic.write_atomic(folder / name, write)

    def overviews(
        self, references: list[plan.Reference], config: tiling.TilingConfig
    ) -> Iterator[tuple[int, arrays.ImageUint8]]:
        """The first slides and all with regions, small: held-out part and regions outlined."""
        shown = {r.cells[0].slide for r in references} | set(list(self.entries)[:_SHOWN])
        for number in sorted(shown):
            here = [r for r in references if r.cells[0].slide == number]
            yield number, _outlined(self.entries[number], here, config)


def _outlined(
    entry: archive.Entry, references: list[plan.Reference], config: tiling.TilingConfig
) -> arrays.ImageUint8:
    picture = pyramid.read_image(entry.folder / "overview.png")
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    height, _ = entry.facts["shape"]
    # Pixels of the overview for one at patch_mpp.
    scale = image.height / height * config.patch_mpp / entry.facts["native_mpp"]
    if "test" in entry.facts["parts"]:
        # Archives that were made when parts were rows alone say nothing of columns.
        top, bottom, *cols = (value * scale for value in entry.facts["parts"]["test"])
        left, right = cols or (0, image.width)
        _outline(pen, (left + 1, top, right - 2, bottom - 2), (20, 90, 200))
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
