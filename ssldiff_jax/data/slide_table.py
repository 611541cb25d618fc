"""Slides that tables list: which files they are, and which side of the split each is on."""

import functools
import os
import pathlib
from collections.abc import Iterable, Mapping

from ssldiff_jax.data import plan, slide_rows
from ssldiff_jax.data.slide_rows import Row, SlideTableError
from ssldiff_jax.slides import remote
from ssldiff_jax.slides import slide as slide_lib

__all__ = ["Row", "SlideTableError", "is_table", "read", "require_sides"]

SUFFIX = ".csv"


def is_table(spec: str) -> bool:
    """Whether slides are named by tables: one CSV file, or several behind one another."""
    return all(part.strip().lower().endswith(SUFFIX) for part in spec.split(","))


def read(spec: str, folder: str) -> dict[str, Row]:
    """Rows by the path or address of their slide, sorted by it.

    Slides are named by paths or addresses, absolute ones or below `folder` (of the first table's
    where that is ""); the suffix may be left out. Several rows of one slide are joined, in one
    table or several. Raises SlideTableError for a table that cannot be read, whose rows disagree,
    that names no slide which is there, or puts one case on two sides.
    """
    paths = [pathlib.Path(part.strip()).expanduser() for part in spec.split(",")]
    base = folder or str(paths[0].parent)
    rows = [row for path in paths for row in slide_rows.read(path)]
    files = _Files(base)
    by_slide: dict[str, tuple[str, Row]] = {}
    for row in rows:
        source = files.locate(row.slide)
        key = source if remote.is_remote(source) else os.path.realpath(source)
        first = by_slide.get(key)
        by_slide[key] = (source, row) if first is None else (first[0], first[1].joined(row))
    found = dict(sorted(by_slide.values(), key=lambda item: item[0]))
    if not any(remote.is_remote(source) or os.path.exists(source) for source in found):
        first = next(iter(found.values()))
        raise SlideTableError(
            f"{spec}: expected slides below {base}, got none of {len(found)}, such as "
            f"{first.slide} in {first.where}: say --config.data.folder=<folder of the slides>"
        )
    return found


def require_sides(rows: Iterable[Row], cases: Mapping[str, str]) -> None:
    """Check the splits of slides, whose cases are given by `where` of a row.

    Raises SlideTableError where one has a split and another none, one case lies on two sides, or
    nothing is trained on or tested.
    """
    rows = list(rows)
    without = [row for row in rows if row.split is None]
    if len(without) == len(rows):
        return
    if without:
        raise SlideTableError(
            f"{without[0].where} must have a split, as others have, got none for {len(without)} of "
            f"{len(rows)} slides"
        )
    first_of: dict[str, Row] = {}
    for row in rows:
        case = cases[row.where]
        first = first_of.setdefault(case, row)
        if first.split != row.split:
            raise SlideTableError(
                f"{first.where} and {row.where} must be of one split, as they are of case {case}, "
                f"got {first.split} and {row.split}"
            )
    for side in ("train", "test"):
        if side not in {row.split for row in rows}:
            raise SlideTableError(
                f"{rows[0].where.rpartition(':')[0]}: column split must have train and test, got "
                f"no slide for {side}"
            )


class _Files:
    """Finds slides below a folder, or behind an address."""

    def __init__(self, base: str):
        self._base = base

    def locate(self, name: str) -> str:
        """The path or address of a slide, whether or not it is there."""
        if remote.is_remote(name):
            return name
        name = os.path.expanduser(name)
        is_far = remote.is_remote(self._base) and not os.path.isabs(name)
        whole = f"{self._base.rstrip('/')}/{name}" if is_far else os.path.join(self._base, name)
        suffix = pathlib.PurePath(name).suffix.lower()
        if suffix in slide_lib.SUFFIXES or (not is_far and os.path.exists(whole)):
            return whole
        same = self._by_stem.get(remote.name_of(name), [])
        if len(same) > 1:
            raise SlideTableError(
                f"{name} must be one slide in {self._base}, got "
                f"{' and '.join(map(remote.name_of, same))}: write its suffix"
            )
        return same[0] if same else whole

    @functools.cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        """Slides in the folder by their names without a suffix."""
        if remote.is_remote(self._base):
            paths = remote.find(self._base)
        else:
            folder = pathlib.Path(self._base)
            named = [path for path in folder.iterdir() if path.suffix.lower() in slide_lib.SUFFIXES]
            paths = sorted(map(str, named))
        by_stem: dict[str, list[str]] = {}
        for path in paths:
            by_stem.setdefault(plan.stem_of(remote.name_of(path)), []).append(path)
        return by_stem
