"""What is known of cases: labels, numbers and captions, from CSV files with a column `case`."""

import csv
import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float


class TableError(ValueError):
    """A CSV file that cannot be used; the message names it."""


def _read(path: str, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a file that has a column `case`, and these."""
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise TableError(f"{path} must be a CSV file, got no such file")
    try:
        # Excel begins UTF-8 with a byte order mark, which would be part of the first column's name.
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            names, rows = reader.fieldnames or [], list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path} must be a CSV file in UTF-8, got: {error}") from error
    missing = [name for name in ("case", *columns) if name not in names]
    if missing or not rows:
        raise TableError(
            f"{path} must have rows and the columns {', '.join(('case', *columns))}, got "
            f"{len(rows)} rows and {', '.join(map(str, names)) or 'no columns'}"
        )
    for number, row in enumerate(rows):
        # csv keeps what is too much under None, and gives None for what lacks. Row 1 is the header.
        if None in row or None in row.values():
            raise TableError(f"{path}: row {number + 2} must have {len(names)} values")
    return rows


def require_columns(path: str, columns: Sequence[str]) -> None:
    """Raises TableError for a file without rows, the column `case`, or these."""
    _read(path, columns)


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes of cases; a case may have several rows."""

    names: tuple[str, ...]
    of_case: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, path: str) -> "Labels":
        """Columns case and label."""
        of_cases: dict[str, set[str]] = {}
        for row in _read(path, ("label",)):
            if row["label"].strip():
                of_cases.setdefault(row["case"], set()).add(row["label"].strip())
        names = tuple(sorted(set().union(*of_cases.values()))) if of_cases else ()
        if not names:
            raise TableError(f"{path} must name labels, got none")
        return cls(names, {case: frozenset(labels) for case, labels in of_cases.items()})

    def values(self, case: str) -> Float[np.ndarray, "K"]:
        """1 for the labels of a case, 0 for the others; NaN where it is in no row."""
        if case not in self.of_case:
            return np.full(len(self.names), np.nan, np.float32)
        return np.array([name in self.of_case[case] for name in self.names], np.float32)


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
        names = tuple(name for name in rows[0] if name != "case")
        of_cases = {}
        for number, row in enumerate(rows):
            if row["case"] in of_cases:
                raise TableError(f"{path}: case {row['case']!r} must have one row, got several")
            of_cases[row["case"]] = _numbers(path, number, row, names)
        mean, std = _scale(path, names, [v for case, v in of_cases.items() if case in training])
        scaled = {case: ((row - mean) / std).astype(np.float32) for case, row in of_cases.items()}
        return cls(names, scaled, mean.astype(np.float32), std.astype(np.float32))

    def values(self, case: str) -> Float[np.ndarray, "V"]:
        """Standardised; NaN where they are missing."""
        return self.of_case.get(case, np.full(len(self.names), np.nan, np.float32))


def _numbers(
    path: str, number: int, row: Mapping[str, str], names: Sequence[str]
) -> Float[np.ndarray, "V"]:
    """The values of a row; NaN where a cell is empty."""
    try:
        return np.array([float(row[name]) if row[name].strip() else np.nan for name in names])
    except ValueError as error:
        raise TableError(f"{path}: row {number + 2} must hold numbers: {error}") from error


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
            if row["caption"].strip():
                of_cases[row["case"]] = (*of_cases.get(row["case"], ()), row["caption"].strip())
        return cls(of_cases)

    def choose(self, case: str, generator: np.random.Generator) -> str:
        """One of a case; empty where it has none."""
        texts = self.of_case.get(case, ())
        return texts[generator.integers(len(texts))] if texts else ""
