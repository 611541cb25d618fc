"""Rows of a table of slides: what one CSV file says of each.

TRIDENT's lists (`wsi`, `mpp`), CLAM's data sets (`case_id`, `slide_id`, `label`), its lists of what
to process (`slide_id`, `process`) and its splits (`train`, `val`, `test`) are read as they are.
"""

import csv
import dataclasses
import difflib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssldiff_jax.core import pixel_units
from ssldiff_jax.data import csv_cells, plan, spelt
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import remote, warn
from ssldiff_jax.slides import slide as slide_lib

_COLUMNS = {
    "slide": ("slide", "wsi", "slide_id"),
    "mpp": ("mpp",),
    "metres": ("metres",),
    "case": ("case", "case_id"),
    "label": ("label",),
    "split": ("split",),
    "reading": ("reading",),
    "process": ("process",),
    "annotations": ("annotations",),
    "mask": ("mask",),
}
"""What columns of a table are called; CLAM's `process` of 0 leaves a slide out."""
_SPLITS: Mapping[str, plan.Side] = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip
_NEAR = 0.8  # of 1 for the same word: lable is label, and site is not slide
_FILES = {"annotations", "mask"}
_MASKS = (".png", ".tif", ".tiff")  # what is no tissue is 0 in them, as in no JPEG


class SlideTableError(slide_lib.SlideError):
    """A table of slides that cannot be used; the message names it, and the row."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What a table says of a slide. What it leaves open is None, or "".

    Attributes:
        where: the table and its row, for messages.
        slide: as it is written.
        mpp: microns per pixel of level 0; of a scene its column `metres` says it.
        case: whose slide it is.
        label: its class.
        split: what it is for.
        reading: keys of `config.data.reading` that are others for this slide.
        is_left_out: whether it is not to be used.
        annotations: path or address of a GeoJSON file of it.
        mask: path or address of an image of its tissue.
    """

    where: str
    slide: str
    mpp: float | None = None
    case: str = ""
    label: str = ""
    split: plan.Side | None = None
    reading: tuple[tuple[str, Any], ...] = ()
    is_left_out: bool = False
    annotations: str = ""
    mask: str = ""

    @property
    def reading_text(self) -> str:
        """Keys of its reading, as a table has them."""
        shown = {k: " ".join(map(str, v)) if k == "bands" else v for k, v in self.reading}
        return "; ".join(f"{key}={value}" for key, value in shown.items())

    def reading_on(self, default: reading_lib.ReadingConfig) -> reading_lib.ReadingConfig:
        """How the slide is read. Raises SlideTableError for values that no reading has."""
        try:
            return dataclasses.replace(default, **dict(self.reading))
        except ValueError as error:
            raise SlideTableError(f"{self.where}: {error}") from error

    def joined(self, other: "Row") -> "Row":
        """Both, of one slide. Raises SlideTableError where they disagree."""
        both = {}
        for field in dataclasses.fields(self)[2:]:
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours and theirs and ours != theirs:
                raise SlideTableError(
                    f"{self.where} and {other.where} must say one {field.name} of {self.slide}, "
                    f"got {_shown(ours)} and {_shown(theirs)}"
                )
            both[field.name] = ours or theirs
        return dataclasses.replace(self, **both)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a table. Raises SlideTableError for one that cannot be read."""
    names, lines = _cells(path)
    columns = _columns(path, names)
    if columns is None:
        return _of_splits(path, names, lines)
    rows = []
    for number, line in lines:
        values = {key: line[name].strip() for key, name in columns.items()}
        for key in _FILES & values.keys():
            # Below the table's folder, as whoever wrote it sees them.
            if values[key] and not remote.is_remote(values[key]):
                values[key] = spelt.on_disk(
                    str(path.parent / pathlib.Path(values[key]).expanduser())
                )
        rows.append(_row(f"{path}: row {number}", values))
    return rows


def _of_splits(
    path: pathlib.Path, names: Sequence[str], lines: Sequence[tuple[int, dict[str, str]]]
) -> list[Row]:
    """Rows of CLAM's table of splits: slides below the name of their split, or, beside their names
    in the first column, True below one of them."""
    splits = [name for name in names if name.lower() in _SPLITS]
    cells = {line[name].strip().lower() for _, line in lines for name in splits}
    of_slides = cells <= {"true", "false", ""}
    if not of_slides and all(re.fullmatch(r"[\d.]*", cell) for cell in cells):
        raise SlideTableError(
            f"{path} must have names of slides below {', '.join(splits)}, got numbers: is it a "
            "summary of the splits?"
        )
    rows = []
    for number, line in lines:
        for name in splits:
            cell, where = line[name].strip(), f"{path}: row {number}, column {name}"
            if of_slides and cell.lower() == "true":
                rows.append(Row(where, line[names[0]].strip(), split=_SPLITS[name.lower()]))
            elif cell and not of_slides:
                rows.append(Row(where, cell, split=_SPLITS[name.lower()]))
    return rows


def _row(where: str, values: Mapping[str, str]) -> Row:
    if not values["slide"]:
        raise SlideTableError(f"{where} must name a slide, got ''")
    split = values.get("split", "")
    if split and split.lower() not in _SPLITS:
        raise SlideTableError(f"{where}: split must be train, validation or test, got {split!r}")
    mask = values.get("mask", "")
    if mask and not remote.name_of(mask).lower().endswith(_MASKS):
        raise SlideTableError(f"{where}: mask must be a PNG or TIFF, got {mask!r}")
    return Row(
        where,
        values["slide"],
        _mpp(where, values),
        values.get("case", ""),
        values.get("label", ""),
        _SPLITS[split.lower()] if split else None,
        _reading(where, values.get("reading", "")),
        values.get("process", "") in ("0", "0.0"),
        values.get("annotations", ""),
        values.get("mask", ""),
    )


def _mpp(where: str, values: Mapping[str, str]) -> float | None:
    sizes = {}
    for key in ("mpp", "metres"):
        text = values.get(key, "")
        try:
            size = float(text.replace(",", ".")) if text else None
        except ValueError:
            size = 0.0
        if size is not None and not 0 < size < float("inf"):
            raise SlideTableError(f"{where}: {key} must be a number above 0, got {text!r}")
        if size is not None:
            sizes[key] = pixel_units.microns(size) if key == "metres" else size
    if len(sizes) > 1:
        raise SlideTableError(f"{where}: must have mpp or metres, got both")
    return next(iter(sizes.values()), None)


def _reading(where: str, text: str) -> tuple[tuple[str, Any], ...]:
    """`bands=4 3 2; low=0; high=3000; colour=srgb`, in any order."""
    values: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        key, _, value = (word.strip() for word in part.partition("="))
        try:
            if key == "bands":
                values[key] = tuple(int(band) for band in value.replace(",", " ").split())
            elif key in ("low", "high"):
                values[key] = float(value)
            elif key == "colour":
                values[key] = value
            else:
                raise ValueError
        except ValueError:
            raise SlideTableError(
                f"{where}: reading must be such as 'bands=4 3 2; low=0; high=3000; colour=srgb', "
                f"got {part!r}"
            ) from None
    # In one order: rows that say the same are the same.
    return tuple(sorted(values.items()))


def _cells(path: pathlib.Path) -> tuple[Sequence[str], list[tuple[int, dict[str, str]]]]:
    """The names of columns, and rows by their number in the file; the header is row 1."""
    if not path.is_file():
        raise SlideTableError(f"expected a table of slides, got {path}: no such file")
    try:
        lines = csv_cells.read(path)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise SlideTableError(f"{path} must be a CSV file in UTF-8, got: {error}") from error
    if len(lines) < 2:
        raise SlideTableError(f"{path} must have a header and rows, got {len(lines)} rows in all")
    (_, header), *rows = lines
    names = [name.strip() for name in header]
    for number, line in rows:
        if len(line) != len(names):
            raise SlideTableError(
                f"{path}: row {number} must have {len(names)} values, got {len(line)}"
            )
    return names, [(number, dict(zip(names, line, strict=True))) for number, line in rows]


def _columns(path: pathlib.Path, names: Sequence[str]) -> dict[str, str] | None:
    """Columns by what they say; None for a table of splits. Raises SlideTableError."""
    by_lower: dict[str, list[str]] = {}
    for name in names:
        by_lower.setdefault(name.lower(), []).append(name)
    columns = {}
    for key, alternatives in _COLUMNS.items():
        named = [name for word in alternatives for name in by_lower.get(word, ())]
        if len(named) > 1:
            raise SlideTableError(
                f"{path} must have one column for the {key}, got {' and '.join(named)}"
            )
        columns |= dict.fromkeys([key] if named else [], *named)
    if "slide" in columns:
        _say_mistyped(path, names, columns)
        return columns
    if {"train", "test"} <= set(by_lower):
        return None
    raise SlideTableError(
        f"{path} must have a column slide, wsi or slide_id, or train and test, got "
        f"{', '.join(filter(None, names)) or 'no names'}"
    )


def _say_mistyped(path: pathlib.Path, names: Sequence[str], columns: Mapping[str, str]) -> None:
    """Warn of a column that is none of ours, and is written nearly as one that is not there:
    tables of other programs have columns of their own, which are no mistakes."""
    left = [word for key, words in _COLUMNS.items() if key not in columns for word in words]
    for name in names:
        known = name in columns.values() or not name
        near = [] if known else difflib.get_close_matches(name.lower(), left, n=1, cutoff=_NEAR)
        if near:
            warn.once(f"{path}: the column {name!r} is not read; is it {near[0]!r}?")
