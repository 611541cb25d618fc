"""What is known of cases: labels, numbers and captions, from CSV files with a column `case`."""

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import spelling
from ssldiff_jax.data import csv_cells, plan
from ssldiff_jax.slides import remote


class TableError(ValueError):
    """A CSV file that cannot be used; the message names it."""


_CASE, _SLIDE = ("case", "case_id"), ("slide", "wsi", "slide_id")
"""What columns of tables of slides are called, any of which may say the labels of cases too."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of a file: its number, its case, or the slide whose case it is, and its values by the
    names of their columns."""

    number: int
    case: str
    slide: str
    values: Mapping[str, str]


def _read(path: str, columns: Sequence[str] = (), *, by_slide: bool = False) -> list[_Row]:
    """The rows of a file that has a column `case`, or of slides where it may be `by_slide`, and
    these."""
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise TableError(f"{path} must be a CSV file, got no such file")
    try:
        header, *lines = csv_cells.read(file) or [(1, [])]
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path} must be a CSV file in UTF-8, got: {error}") from error
    names = [name.strip() for name in header[1]]
    by_name = {name: name for name in names}
    # A column that is asked for is found in capitals, too, and so is that of the case.
    found = {word: _column(path, names, (word,)) for word in columns}
    case = _column(path, names, _CASE)
    slide = _column(path, names, _SLIDE) if by_slide and case is None else None
    if None in found.values() or (case is None and slide is None) or not lines:
        raise TableError(
            f"{path} must have rows and the columns {', '.join(('case', *columns))}, got "
            f"{len(lines)} rows and {', '.join(names) or 'no columns'}"
        )
    by_name |= {name: word for word, name in found.items()}
    rows = []
    for number, line in lines:
        if len(line) != len(names):
            raise TableError(f"{path}: row {number} must have {len(names)} values")
        cells = dict(zip(names, line, strict=True))
        whose = [spelling.same(cells.pop(key, "").strip()) if key else "" for key in (case, slide)]
        rows.append(_Row(number, *whose, {by_name[n]: value for n, value in cells.items()}))
    return rows


def _column(path: str, names: Sequence[str], words: Sequence[str]) -> str | None:
    """The one column that is called by one of some words."""
    exact = [name for name in names if name in words]
    alike = exact or [name for name in names if name.lower() in words]
    if len(alike) > 1:
        raise TableError(
            f"{path} must have one column for the {words[0]}, got {' and '.join(alike)}"
        )
    return alike[0] if alike else None


def require_columns(path: str, columns: Sequence[str]) -> None:
    """Raises TableError for a file without rows, a column of cases (of labels also of slides), or
    these."""
    _read(path, columns, by_slide="label" in columns)


def cases_by_slide(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """The cases of slides by what a table may call them, of (name of a slide's file, its case): by
    its name, with a suffix or without."""
    cases: dict[str, set[str]] = {}
    for name, case in pairs:
        for called in {name, plan.stem_of(name)}:
            cases.setdefault(spelling.same(called), set()).add(case)
    return {name: frozenset(of) for name, of in cases.items()}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes of cases; a case may have several rows."""

    names: tuple[str, ...]
    of_case: Mapping[str, frozenset[str]]

    @classmethod
    def read(
        cls, path: str, slides: Callable[[], Mapping[str, frozenset[str]]] | None = None
    ) -> "Labels":
        """Columns case and label; or label and one of slides, whose cases `slides` knows.

        Raises TableError for a slide of several cases.
        """
        of_cases: dict[str, set[str]] = {}
        known: Mapping[str, frozenset[str]] | None = None
        for row in _read(path, ("label",), by_slide=slides is not None):
            case = row.case
            if row.slide and slides is not None:
                known = slides() if known is None else known
                case = _case_of(path, row, known)
            if row.values["label"].strip():
                if not case:
                    raise TableError(f"{path}: row {row.number} must name a case, got ''")
                of_cases.setdefault(case, set()).add(row.values["label"].strip())
        names = tuple(sorted(set().union(*of_cases.values()))) if of_cases else ()
        if not names:
            raise TableError(f"{path} must name labels, got none")
        return cls(names, {case: frozenset(labels) for case, labels in of_cases.items()})

    def values(self, case: str) -> Float[np.ndarray, "K"]:
        """1 for the labels of a case, 0 for the others; NaN where it is in no row."""
        labels = self.of_case.get(spelling.same(case))
        if labels is None:
            return np.full(len(self.names), np.nan, np.float32)
        return np.array([name in labels for name in self.names], np.float32)


def _case_of(path: str, row: _Row, known: Mapping[str, frozenset[str]]) -> str:
    """The case of a row's slide; of one that no run has its name, which is no case's."""
    name = remote.name_of(row.slide)
    cases = known.get(name) or known.get(plan.stem_of(name)) or frozenset([f"slide {name}"])
    if len(cases) > 1:
        raise TableError(
            f"{path}: row {row.number} must name one slide, got {row.slide}, which are several, of "
            f"the cases {', '.join(sorted(cases))}"
        )
    return spelling.same(next(iter(cases)))


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Real values of cases, by the mean and deviation of those of training cases that are known.

    Held-out cases have no part in either: else a prior would learn something of them.
    """

    names: tuple[str, ...]
    of_case: Mapping[str, Float[np.ndarray, "V"]]
    mean: Float[np.ndarray, "V"]
    std: Float[np.ndarray, "V"]

    @classmethod
    def read(cls, path: str, training: Collection[str]) -> "Numbers":
        """Column case, and one for each value; an empty cell is a missing value.

        Raises TableError for a column without a value of a `training` case.
        """
        rows = _read(path)
        names = tuple(rows[0].values)
        of_cases = {}
        for row in rows:
            if row.case in of_cases:
                raise TableError(f"{path}: case {row.case!r} must have one row, got several")
            of_cases[row.case] = _numbers(path, row, names)
        training = {spelling.same(case) for case in training}
        mean, std = _scale(path, names, [v for case, v in of_cases.items() if case in training])
        scaled = {case: ((row - mean) / std).astype(np.float32) for case, row in of_cases.items()}
        return cls(names, scaled, mean.astype(np.float32), std.astype(np.float32))

    def values(self, case: str) -> Float[np.ndarray, "V"]:
        """Standardised; NaN where they are missing."""
        missing = np.full(len(self.names), np.nan, np.float32)
        return self.of_case.get(spelling.same(case), missing)


def _numbers(path: str, row: _Row, names: Sequence[str]) -> Float[np.ndarray, "V"]:
    """The values of a row; NaN where a cell is empty."""
    cells = [row.values[name].strip() for name in names]
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError as error:
        raise TableError(f"{path}: row {row.number} must hold numbers: {error}") from error


def _scale(
    path: str, names: Sequence[str], rows: Sequence[Float[np.ndarray, "V"]]
) -> tuple[Float[np.ndarray, "V"], Float[np.ndarray, "V"]]:
    """(mean, deviation) of every column; a deviation of 0 counts as 1."""
    table = np.array(rows).reshape(len(rows), len(names))
    has_value = np.isfinite(table).any(axis=0)
    if not names or not has_value.all():
        empty = [name for name, is_known in zip(names, has_value, strict=True) if not is_known]
        raise TableError(
            f"{path} must have values of training cases in every column, got none in {empty[:3]}"
        )
    std = np.nanstd(table, axis=0)
    return np.nanmean(table, axis=0), np.where(std > 0, std, 1.0)


@dataclasses.dataclass(frozen=True)
class Captions:
    """Texts of cases; of several rows any is taken."""

    of_case: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: str) -> "Captions":
        """Columns case and caption."""
        of_cases: dict[str, tuple[str, ...]] = {}
        for row in _read(path, ("caption",)):
            if caption := row.values["caption"].strip():
                of_cases[row.case] = (*of_cases.get(row.case, ()), caption)
        return cls(of_cases)

    def choose(self, case: str, generator: np.random.Generator) -> str:
        """One of a case; empty where it has none."""
        texts = self.of_case.get(spelling.same(case), ())
        return texts[generator.integers(len(texts))] if texts else ""
