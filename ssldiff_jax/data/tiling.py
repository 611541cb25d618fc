"""One slide to an entry of the archive: its tissue, the squares of both splits, what was found.

Runs in a process of its own, or in a worker of Beam: nothing here knows the other slides.
"""

import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ssldiff_jax.core import digests, exhausted
from ssldiff_jax.data import about_slide, archive, own_scale, plan, records, regions
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import geojson, marked, pyramid, quality, remote, shown, tissue
from ssldiff_jax.slides import slide as slide_lib

_LOG = logging.getLogger(__name__)

_OVERVIEW_MPP, _OVERVIEW_PX = 4.0, 1024
_NAME_CHARS = 40  # of a slide's name in that of its folder: 160 bytes in any script

TISSUE = "tissue.geojson"
"""The tissue of a slide, in its entry."""

Cells = dict[str, list[plan.Square]]
FindCells = Callable[[slide_lib.Slide, Mapping[str, tuple[int, int]]], Cells]
"""The patches that are known already, of the rows of each split. Raises SlideError where there are
none."""


@dataclasses.dataclass(frozen=True)
class TilingConfig:
    """What decides the records of a slide, besides its file.

    Attributes:
        patch_mpp: microns per pixel of records.
        tissue: what counts as tissue.
        holdout: what is held out.
        records: their size, distance and quality.
        regions: candidates for reference regions.
        cell_px: side of a cell of those.
        context_px: around cells that are known already.
    """

    patch_mpp: float
    tissue: tissue.TissueConfig
    holdout: plan.HoldoutConfig
    records: plan.RecordConfig
    regions: plan.RegionConfig
    cell_px: int
    context_px: int

    @property
    def region_px(self) -> tuple[int, int]:
        """Height and width of a reference region."""
        return self.regions.rows * self.cell_px, self.regions.cols * self.cell_px


@dataclasses.dataclass(frozen=True)
class Task:
    """A slide to be tiled; it can be sent to another process.

    Attributes:
        source: path or address, for messages.
        open: opens it.
        fingerprint: changes when the file does; as a list of its content, the microns per pixel
            that are given (0: the file's), and what else its pixels are read by.
        config: how it is tiled.
        archive: where entries lie.
        find_cells: the patches that are known already, if any.
        known: changes when those do.
        about: what its name does not say.
        marks: what a user says of its tissue, if anything.
    """

    source: str
    open: Callable[[], slide_lib.Slide]
    fingerprint: Any
    config: TilingConfig
    archive: pathlib.Path
    find_cells: FindCells | None = None
    known: Any = None
    about: about_slide.About = about_slide.NOTHING
    marks: marked.Marks | None = None

    @property
    def case(self) -> str:
        """Whose slide it is."""
        return self.about.case or plan.case_of(self.name, self.config.holdout.case_regex)

    @property
    def name(self) -> str:
        """File name of the slide."""
        return remote.printable(remote.name_of(self.source))

    def asked(self, case: str, label: str) -> list[str]:
        """Path or address, and what a table would have to say for the same entry: mpp (where one
        was given), case, label, reading, annotations and mask."""
        is_far, marks = remote.is_remote(self.source), self.marks
        source = self.source if is_far else os.path.abspath(self.source)
        mpp = self.given_mpp
        # By its digits: a table's number is taken as it stands.
        files = [
            os.path.abspath(f) if f and not remote.is_remote(f) else f
            for f in (self.about.annotations, marks.mask if marks else "")
        ]
        about = [repr(mpp) if mpp else "", case, label, self.about.reading]
        return [remote.printable(source), *about, *files]

    @property
    def folder(self) -> pathlib.Path:
        """Where its entry will lie."""
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.name)
        facts = [self.name, self.fingerprint, self.config, self.known]
        facts += [self.marks.fingerprint()] if self.marks else []
        # Left out where nothing is known: the entry then has one name whatever other slides there
        # are, in a table or not.
        about = {key: value for key, value in dataclasses.asdict(self.about).items() if value}
        # Reading is among the facts of the file, and polygons among those of marks.
        side, *_ = (about.pop(key, None) for key in ("side", "where", "reading", "annotations"))
        digest = digests.of_values(*facts, *([side] if side else []), *([about] if about else []))
        return self.archive / f"{stem[:_NAME_CHARS]}-{digest}"

    @property
    def failure(self) -> pathlib.Path:
        """Where it says why there is none."""
        return self.folder.with_name(f"{self.folder.name}.failed.json")

    def outcome(self) -> archive.Entry | str | None:
        """Its entry, or why there is none; None: nobody did it."""
        entry = archive.Entry.read(self.folder) or self._by_its_own_scale()
        if entry is None and self.failure.exists():
            return atomic.read_json(self.failure)["reason"]
        return entry

    @property
    def without_mpp(self) -> "Task | None":
        """The same where only the file says its scale; None where none is given."""
        if not self.given_mpp:
            return None
        content, _, *more = self.fingerprint
        return dataclasses.replace(self, fingerprint=[content, 0.0, *more])

    @property
    def given_mpp(self) -> float:
        """Microns per pixel that are taken whatever the file says; 0 for none."""
        return self.fingerprint[1] if isinstance(self.fingerprint, list) else 0.0

    def _by_its_own_scale(self) -> archive.Entry | None:
        """The entry of the slide without a given scale, where its file says that one."""
        other = self.without_mpp
        entry = archive.Entry.read(other.folder) if other else None
        return entry if entry and entry.facts["native_mpp"] == self.given_mpp else None

    def folder_of(self, slide: slide_lib.Slide) -> pathlib.Path:
        """Where the entry of an open slide is written: that without a given scale where its file
        says the same, so that it is one, whoever says it."""
        other = self.without_mpp
        return other.folder if other and own_scale.said(slide) == slide.mpp else self.folder

    def fail(self, reason: str) -> None:
        """Say why there is no entry."""
        source, reason = remote.printable(self.source), remote.printable(reason)
        where = self.about.where
        reason = f"{reason} ({where})" if where and where not in reason else reason
        atomic.write_json(self.failure, {"slide": source, "reason": reason})


def tile(task: Task) -> None:
    """Make the entry of a slide, or say why it can't be: nothing that is wrong with one slide
    stops the others."""
    try:
        slide = task.open()
        try:
            _tile(task, slide)
        finally:
            slide.close()
    except Exception as error:  # whatever a file trips over costs that file
        shortage = exhausted.shortage(error)
        if shortage is not None and shortage.of == "disk":
            raise  # no fault of the slide's
        # Readers raise these of a bad file; anything else may be ours and leaves its traceback.
        if not isinstance(error, ValueError | OSError | MemoryError):
            _LOG.exception("%s", remote.printable(task.source))
        task.fail(" ".join(str(error).split()) or type(error).__name__)
    else:
        task.failure.unlink(missing_ok=True)


def _tile(task: Task, slide: slide_lib.Slide) -> None:
    config = task.config
    parts = plan.parts(slide, config.holdout, config.patch_mpp, task.about.side)
    # Before the tissue: a slide without embeddings is refused without looking for it.
    cells = task.find_cells(slide, parts) if task.find_cells else None
    examined = marked.examine(slide, config.tissue, task.marks)
    cells = of_marks(cells, examined.allowed, config)
    about = {
        "slide": task.name,
        "case": task.case,
        "label": task.about.label,
        "mpp": config.patch_mpp,
    }
    quality = records.quality_of(config.records.jpeg_quality, slide.multiband)
    with archive.new_entry(task.folder_of(slide), **about) as (writer, folder):
        for split, mpp, places in squares(slide, parts, examined.mask, cells, config):
            writer.declare(split)
            for s in places:
                pixels = slide.read_region(s.top, s.left, s.height, s.width, mpp=mpp)
                writer.add(split, s, pixels, quality, mpp=mpp)
        pyramid.write_png(folder / "overview.png", _overview(slide, examined))
        geojson.write(folder / TISSUE, marked.outline(slide, examined.mask), about=task.name)
        writer.close(
            case=about["case"],
            label=about["label"],
            native_mpp=slide.mpp,
            shape=list(slide.shape),
            identity=slide_lib.identity(slide),
            look=look(slide, examined),
            tissue=examined.parts,
            **({"polygons": examined.polygons} if examined.polygons else {}),
            parts={split: [*part.rows, *part.cols] for split, part in parts.items()},
            regions=candidates(slide, parts, examined.mask, cells, config),
            **records.facts_of(slide.multiband),
        )


def look(slide: slide_lib.Slide, examined: tissue.Examined) -> str:
    """A hash of its size and of it small: copies share it, though their files say other things."""
    thumbnail = np.ascontiguousarray(examined.thumbnail)
    facts = repr((slide.shape, slide.mpp, thumbnail.shape)).encode()
    return hashlib.sha256(facts + thumbnail.tobytes()).hexdigest()


def _overview(slide: slide_lib.Slide, examined: tissue.Examined) -> np.ndarray:
    """The slide, small, with what is no tissue pale and what spoils it tinted."""
    longest = max(slide.shape) * slide.mpp
    mpp = max(_OVERVIEW_MPP, slide.mpp, longest / _OVERVIEW_PX)
    height, width = slide.shape_at(mpp)
    pixels = shown.read(slide, 0, 0, height, width, mpp=mpp)
    # Nearest: a kind is a number, and between two of them lies a third.
    kinds = Image.fromarray(examined.kinds).resize((width, height), Image.Resampling.NEAREST)
    return quality.tinted(pixels, np.asarray(kinds))


def of_marks(
    known: Cells | None, allowed: tissue.TissueMask | None, config: TilingConfig
) -> Cells | None:
    """Patches that are known already, those alone that a user's marks leave, whatever tissue is
    found."""
    if known is None or allowed is None:
        return known
    least, mpp = config.records.min_tissue, config.patch_mpp
    return {
        split: [
            s for s in cells if allowed.fraction(s.top, s.left, s.height, s.width, mpp=mpp) >= least
        ]
        for split, cells in known.items()
    }


def squares(
    slide: slide_lib.Slide,
    parts: Mapping[str, plan.Part],
    mask: tissue.TissueMask,
    known: Cells | None,
    config: TilingConfig,
) -> Iterator[tuple[str, float, list[plan.Square]]]:
    """Split, mpp and squares, from top to bottom."""
    if known is not None:
        for split, cells in known.items():
            # A mosaic searches its records by rows.
            cells = sorted(cells, key=lambda s: (s.top, s.left))
            yield split, config.patch_mpp, [plan.grown(c, config.context_px) for c in cells]
        return
    for scale in (1.0, *config.records.scales):
        mpp = config.patch_mpp * scale
        for split, part in parts.items():
            places = plan.squares(0, part.scaled(scale), mask, config.records, mpp)
            yield plan.split_at(split, scale), mpp, places


def candidates(
    slide: slide_lib.Slide,
    parts: Mapping[str, plan.Part],
    mask: tissue.TissueMask,
    known: Cells | None,
    config: TilingConfig,
) -> list[dict[str, Any]]:
    """Candidates for reference regions: how much tissue, place, and the rows of their cells."""
    if "test" not in parts:
        return []
    if known is not None:
        cells = known["test"]
        best = regions.whole_regions(cells, config.region_px, config.cell_px)
    else:
        cells, size = [], config.region_px
        best = regions.of_most_tissue(
            0, parts["test"], mask, config.regions, size, config.patch_mpp
        )
    best = regions.pick_apart(sorted(best, key=lambda item: -item[0]), config.regions.count)
    return [
        {
            "tissue": fraction,
            "cells": [
                [cell.top, cell.left, cell.row]
                for cell in plan.Reference.region(square, config.cell_px, cells).cells
            ],
        }
        for fraction, square in best
    ]
