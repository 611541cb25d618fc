"""Slides that tables list: which files they are, and which side of the split each is on."""

import os
import pathlib
from collections.abc import Mapping

from ssldiff_jax.core import spelling
from ssldiff_jax.data import plan, slide_rows, spelt
from ssldiff_jax.data.slide_rows import Row, SlideTableError
from ssldiff_jax.slides import ngff, remote
from ssldiff_jax.slides import slide as slide_lib

__all__ = ["Row", "SlideTableError", "is_table", "parts_of", "read", "require_sides"]

SUFFIXES = (".csv", ".tsv")


def is_table(spec: str) -> bool:
    """Whether slides are named by tables: one CSV file, or several behind one another.

    Raises SlideTableError where others are named beside tables.
    """
    are_tables = [part.lower().endswith(SUFFIXES) for part in parts_of(spec)]
    if any(are_tables) and not all(are_tables):
        raise SlideTableError(
            f"config.data.slides must name tables or slides, got both in {spec!r}: a table may "
            "list slides of any folder"
        )
    return all(are_tables)


def parts_of(spec: str) -> list[str]:
    """Paths behind one another; one that is there may have commas in its name."""
    is_one_path = os.path.exists(os.path.expanduser(spec))
    return [spec] if is_one_path else [part.strip() for part in spec.split(",")]


def read(spec: str, folder: str) -> dict[str, Row]:
    """Rows by the path or address of their slide, sorted by it.

    Slides are named by paths or addresses, absolute ones or below `folder` (of the first table's
    where that is ""); the suffix may be left out. Several rows of one slide are joined, in one
    table or several. Raises SlideTableError for a table that cannot be read, whose rows disagree,
    that names no slide which is there, or puts one case on two sides.
    """
    for part in filter(remote.is_remote, parts_of(spec)):
        raise SlideTableError(f"a table of slides must lie on this machine, got {part}")
    paths = [pathlib.Path(part).expanduser() for part in parts_of(spec)]
    base = os.path.expanduser(folder) or str(paths[0].parent)
    if not (remote.is_remote(base) or os.path.isdir(base)):
        raise SlideTableError(f"config.data.folder must be a folder, got {base}: no such folder")
    rows = [row for path in paths for row in slide_rows.read(path)]
    files = _Files(base)
    by_slide: dict[str, tuple[str, Row]] = {}
    for row in rows:
        source = files.locate(row.slide)
        key = source if remote.is_remote(source) else os.path.realpath(source)
        first = by_slide.get(key)
        by_slide[key] = (source, row) if first is None else (first[0], first[1].joined(row))
    # Only now: one table may leave out what another lists.
    used = [(source, row) for source, row in by_slide.values() if not row.is_left_out]
    if not used:
        raise SlideTableError(f"{spec} must name slides, got none ({len(by_slide)} with process 0)")
    found = dict(sorted(used, key=lambda item: item[0]))
    if not any(remote.is_remote(source) or os.path.exists(source) for source in found):
        first = next(iter(found.values()))
        raise SlideTableError(
            f"{spec}: expected slides below {base}, got none of {len(found)}, such as "
            f"{first.slide} in {first.where}: say --config.data.folder=<folder of the slides>"
        )
    return found


def require_sides(by_source: Mapping[str, Row], cases: Mapping[str, str]) -> None:
    """Check the cases and splits of slides, by path or address.

    Raises SlideTableError where one has a case or a split and another none, one case lies on two
    sides, or nothing is trained on or tested.
    """
    rows = list(by_source.values())
    without = [row for row in rows if not row.case]
    if 0 < len(without) < len(rows):
        raise SlideTableError(
            f"{without[0].where} must have a case, as others have, got none for {len(without)} of "
            f"{len(rows)} slides: slides of one case must not be parted"
        )
    spelt_first: dict[str, Row] = {}
    for row in rows:
        first = spelt_first.setdefault(spelling.same(row.case), row)
        if first.case != row.case:
            raise SlideTableError(
                f"{first.where} and {row.where} must write one case alike, got {first.case} in two "
                "spellings of Unicode (NFC, NFD)"
            )
    without = [row for row in rows if row.split is None]
    if len(without) == len(rows):
        return
    if without:
        raise SlideTableError(
            f"{without[0].where} must have a split, as others have, got none for {len(without)} of "
            f"{len(rows)} slides"
        )
    first_of: dict[str, Row] = {}
    for source, row in by_source.items():
        case = spelling.same(cases[source])
        first = first_of.setdefault(case, row)
        if first.split != row.split:
            raise SlideTableError(
                f"{first.where} and {row.where} must be of one split, as they are of case {case}, "
                f"got {first.split} and {row.split}"
            )
    for side in ("train", "test"):
        if side not in {row.split for row in rows}:
            raise SlideTableError(
                f"{rows[0].where.partition(': row')[0]}: splits must have train and test, got no "
                f"slide for {side}"
            )


class _Files:
    """Finds slides below a folder, or behind an address."""

    def __init__(self, base: str):
        self._base = base
        self._stems: dict[str, Mapping[str, list[str]]] = {}

    def locate(self, name: str) -> str:
        """The path or address of a slide, whether or not it is there."""
        if remote.is_remote(name):
            return name
        if "\0" in name:
            raise SlideTableError(f"a slide must have a name without null characters, got {name!r}")
        name = os.path.expanduser(name)
        is_far = remote.is_remote(self._base) and not os.path.isabs(name)
        whole = f"{self._base.rstrip('/')}/{name}" if is_far else os.path.join(self._base, name)
        # A folder of its name lies beside each MRXS.
        is_there = not is_far and (os.path.isfile(whole) or ngff.is_named(whole))
        if not (is_far or is_there):
            whole = spelt.on_disk(whole)
        if pathlib.PurePath(name).suffix.lower() in slide_lib.SUFFIXES or is_there:
            return whole
        if not is_far and (os.path.isfile(whole) or ngff.is_named(whole)):
            return whole
        folder, _, stem = whole.rpartition("/")
        if not is_far:
            folder = spelt.on_disk(folder)
        same = self._by_stem(folder).get(spelling.same(stem), [])
        if len(same) > 1:
            raise SlideTableError(
                f"{name} must be one slide in {folder}, got "
                f"{' and '.join(map(remote.name_of, same))}: write its suffix"
            )
        return same[0] if same else whole

    def _by_stem(self, folder: str) -> Mapping[str, list[str]]:
        """Slides in a folder by their names without a suffix; each is looked into once."""
        if folder not in self._stems:
            self._stems[folder] = _of_folder(folder)
        return self._stems[folder]


def _of_folder(folder: str) -> dict[str, list[str]]:
    if remote.is_remote(folder):
        paths = remote.find(folder)
    elif os.path.isdir(folder):
        inside = pathlib.Path(folder).iterdir()
        paths = sorted(str(p) for p in inside if p.suffix.lower() in slide_lib.SUFFIXES)
    else:
        paths = []
    by_stem: dict[str, list[str]] = {}
    for path in paths:
        stem = spelling.same(plan.stem_of(remote.name_of(path)))
        by_stem.setdefault(stem, []).append(path)
    return by_stem
