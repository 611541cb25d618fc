"""Which slides a config names: by paths, by addresses, or by a table."""

import dataclasses
import functools
import glob
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssldiff_jax.core import schema, spelling
from ssldiff_jax.data import cases, demo_slide, plan, slide_table
from ssldiff_jax.data import config as data_config
from ssldiff_jax.slides import protocol, remote, stac_files
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib


@dataclasses.dataclass(frozen=True)
class NamedSlide:
    """A slide that a config names, and how it is opened.

    Attributes:
        source: path or address.
        mpp: microns per pixel of level 0; 0 takes what the file says.
        reading: what its values mean.
        row: of the table that lists it, if one does.
    """

    source: str
    mpp: float
    reading: reading_lib.ReadingConfig
    row: slide_table.Row | None = None

    @property
    def opener(self) -> Callable[[], slide_lib.Slide]:
        """Opens it; can be sent to another process."""
        where = self.row.where if self.row else ""
        return functools.partial(_open, where, self.source, self.mpp or None, self.reading)


def _open(
    where: str, source: str, mpp: float | None, reading: reading_lib.ReadingConfig
) -> slide_lib.Slide:
    """A slide; `where` is the row of a table that lists it, or ""."""
    open_slide = remote.open_remote if remote.is_remote(source) else slide_lib.open_slide
    try:
        return open_slide(source, mpp=mpp, reading=reading)
    except protocol.NoScaleError as error:
        if not where:
            raise
        # The keys of a config hold for all slides.
        columns = [c for c in ("mpp", "metres") if f"--config.data.{c}=" in error.keys]
        raise slide_lib.SlideError(
            f"{error.problem}: say it in the column {' or '.join(columns)} of {where}"
        ) from error


def slides(data: data_config.DataConfig) -> list[NamedSlide]:
    """The slides that a config names, sorted by kind and name.

    Raises SlideError when there is none, or a table of them cannot be used, ConfigError where none
    are named.
    """
    if slide_table.is_table(data.slides):
        rows = slide_table.read(data.slides, data.folder)
        return [
            NamedSlide(source, row.mpp or data.mpp, row.reading_on(data.reading), row)
            for source, row in rows.items()
        ]
    if data.folder:
        raise schema.ConfigError(
            "config.data.folder must be '' where config.data.slides is no table of slides, got "
            f"{data.folder!r}"
        )
    return [NamedSlide(source, data.mpp, data.reading) for source in sources(data)]


def sources(data: data_config.DataConfig) -> list[str]:
    """Paths and addresses of the slides that a config names, sorted by kind and name.

    Raises SlideError when there is none, ConfigError where none are named.
    """
    if not data.slides:
        raise schema.ConfigError("config.data.slides must name slides or patches, got ''")
    if slide_table.is_table(data.slides):
        return list(slide_table.read(data.slides, data.folder))
    if data.slides in demo_slide.PACKAGED:
        return [str(demo_slide.packaged(data.slides))]
    is_one_path = os.path.exists(os.path.expanduser(data.slides))  # it may have commas in its name
    parts = [data.slides] if is_one_path else [part.strip() for part in data.slides.split(",")]
    if not remote.is_remote(data.slides) and not any(map(stac_files.is_stac, parts)):
        return [str(path) for path in slide_lib.find_slides(data.slides)]
    of_items = [
        slide for part in _stac_files(parts) for slide in stac_files.slides_of(part, data.asset)
    ]
    parts = [part for part in parts if not stac_files.is_stac(part)]
    # Together, so that a path that two parts name is one slide, as it is without addresses.
    near = ",".join(part for part in parts if not remote.is_remote(part))
    local = slide_lib.find_slides(near) if near else []
    far = [address for part in parts if remote.is_remote(part) for address in remote.find(part)]
    return list(dict.fromkeys([*map(str, local), *far, *of_items]))


def _stac_files(parts: Sequence[str]) -> list[str]:
    """The STAC files among parts of `config.data.slides`, of which local ones may be globs."""
    files = []
    for part in filter(stac_files.is_stac, parts):
        path = part if remote.is_remote(part) else os.path.expanduser(part)
        is_one = remote.is_remote(part) or os.path.exists(path)
        files += [path] if is_one else sorted(glob.glob(path, recursive=True)) or [path]
    return files


def listed(named: Sequence[NamedSlide], holdout: plan.HoldoutConfig) -> dict[str, cases.Listed]:
    """What a table says of slides, by path or address; empty without a table.

    Raises SlideTableError where its splits part a case, ConfigError where these are not by case.
    """
    rows = {slide.source: slide.row for slide in named if slide.row is not None}
    by_source = {}
    for source, row in rows.items():
        case = row.case or plan.case_of(remote.name_of(source), holdout.case_regex)
        by_source[source] = cases.Listed(case, row.split, bool(row.case))
    if holdout.by != "case" and any(row.split for row in rows.values()):
        raise schema.ConfigError(
            "config.data.holdout.by must be case, as a table of slides says their splits, got "
            f"{holdout.by}"
        )
    slide_table.require_sides(rows, {source: one.case for source, one in by_source.items()})
    return by_source


def table_facts(named: Sequence[NamedSlide]) -> dict[str, Any]:
    """What a table says of slides beyond their files, under `table`; nothing without a table.

    Where a table stands and how its rows are numbered is no part of it.
    """
    rows = [slide.row for slide in named if slide.row is not None]
    facts = [[r.mpp, r.case, r.label, r.split, list(map(list, r.reading))] for r in rows]
    return {"table": facts} if rows else {}


def cases_by_number(data: data_config.DataConfig, names: Mapping[int, str]) -> dict[int, str]:
    """Cases of slides, or of a list's patches, whose names are given by number."""
    if slide_table.is_table(data.slides):
        of_slides = listed(slides(data), data.holdout)
        return dict(enumerate(one.case for one in of_slides.values()))
    return {n: plan.case_of(name, data.holdout.case_regex) for n, name in names.items()}


def contradiction(data: data_config.DataConfig) -> str:
    """Where a table says another case than the pattern finds in a file's name; "" for nowhere."""
    others = [
        (slide.row, found)
        for slide in slides(data)
        if slide.row is not None
        and slide.row.case
        and (found := plan.match_of(remote.name_of(slide.source), data.holdout.case_regex))
        and spelling.same(found) != spelling.same(slide.row.case)
    ]
    if not others:
        return ""
    row, found = others[0]
    return (
        f"{len(others)} slides are of another case than config.data.holdout.case_regex finds in "
        f"their names, such as {row.case} in {row.where}, not {found}: the table's is used"
    )
