"""Cells of CSV files as spreadsheets write them."""

import csv
import io
import pathlib
import re
from collections.abc import Sequence

_DELIMITERS = ",;\t"  # Excel writes semicolons where a comma is part of a number


def read(path: pathlib.Path) -> list[tuple[int, Sequence[str]]]:
    """The rows that are not empty, by their number in the file; the header is the first of them.

    Raises csv.Error, UnicodeDecodeError or OSError for what is no CSV file in UTF-8.
    """
    # Excel begins UTF-8 with a byte order mark, which would be part of the first column's name.
    text = path.read_text(encoding="utf-8-sig")
    # What Excel may write before the header.
    text = re.sub(r"\Asep=.\r?\n", "", text)
    delimiter = _delimiter(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [(reader.line_num, line) for line in reader if any(line)]


def _delimiter(header: str) -> str:
    """The one that parts the header most often."""
    return max(_DELIMITERS, key=header.count)
