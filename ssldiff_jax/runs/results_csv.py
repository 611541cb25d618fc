"""`results.csv`: a line for each evaluation, which outlives the stages that wrote it."""

import fcntl
import io
import numbers
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import schema
from ssldiff_jax.data import csv_cells
from ssldiff_jax.formats import atomic


def add(workdir: pathlib.Path, of: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Add a line: the date, what was evaluated (`of`), and every number and text of the results.

    It takes the place of a last line that says the same: an evaluation that was cut off after its
    line has it again.
    """
    flat = {key: _cell(value) for key, value in schema.flatten(results).items()}
    row = {"date": time.strftime("%Y-%m-%dT%H:%M:%S"), **of}
    row |= {key: value for key, value in flat.items() if value is not None}
    path = workdir / "results.csv"
    # A tool that watches may judge beside a stage.
    with (workdir / ".results.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = _read(path.read_text()) if path.exists() else []
        if before and _facts(before[-1]) == _facts(_read(_as_text([row]))[0]):
            before.pop()
        atomic.write_text(path, _as_text([*before, row]))


def _read(text: str) -> list[dict[str, str]]:
    return list(csv_cells.written_rows(io.StringIO(text)))


def _as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    # Columns of all lines: figures came and went between evaluations.
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv_cells.Writer(text)
    writer.row(names)
    for row in rows:
        writer.row(row.get(name, "") for name in names)
    return text.getvalue()


def _facts(row: Mapping[str, str]) -> dict[str, str]:
    """What a line says, but for its date."""
    return {name: value for name, value in row.items() if value and name != "date"}


def _cell(value: Any) -> Any:
    """What stands in a column; None for what is no column of a table."""
    # Python counts a bool as a number.
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | numbers.Real | tuple):
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else value
