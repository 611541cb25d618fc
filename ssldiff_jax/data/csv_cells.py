"""Cells of CSV files as spreadsheets write them, and as they compute nothing in them.

A text that a spreadsheet would compute, such as `=1+1`, is written behind an apostrophe, which is
taken away where it is read again. Source: OWASP's page on CSV injection.
"""

import csv
import io
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

_BEGIN = "=+-@＝＋－＠"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")  # as Python writes it
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
    return [(reader.line_num, list(map(unquoted, line))) for line in reader if any(line)]


def quoted(value: Any) -> Any:
    """A value as it is written: `unquoted` gives back every text."""
    return f"'{value}" if isinstance(value, str) and _is_computed(value) else value


def unquoted(text: str) -> str:
    """What was written."""
    return text[1:] if text.startswith("'") and _is_computed(text) else text


class Writer:
    """Writes rows of what users name, in lines as on Unix."""

    def __init__(self, file: TextIO):
        self._file = file

    def row(self, values: Iterable[Any]) -> None:
        """Write a row."""
        line = io.StringIO()
        # csv puts in quotes what ends its own lines, and a reader takes both.
        csv.writer(line, lineterminator="\r\n").writerow(map(quoted, values))
        self._file.write(line.getvalue().removesuffix("\r\n") + "\n")


def written_rows(file: TextIO) -> Iterator[dict[str, str]]:
    """The rows of a file of ours, by its header."""
    for row in csv.DictReader(file):
        # Values beyond the header's, of a file that was edited, have no name.
        yield {unquoted(name): unquoted(value or "") for name, value in row.items() if name}


def _is_computed(text: str) -> bool:
    """Whether a spreadsheet may compute it; apostrophes before it change nothing of that, so that
    one more or less can be told."""
    rest = text.lstrip("' \t\r\n")
    return rest[:1] in _BEGIN and rest != "" and not _NUMBER.fullmatch(rest)


def _delimiter(header: str) -> str:
    """The one that parts the header most often."""
    return max(_DELIMITERS, key=header.count)
