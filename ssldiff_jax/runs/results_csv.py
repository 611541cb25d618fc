"""`results.csv`: a line for each evaluation, which outlives the stages that wrote it."""

import csv
import fcntl
import io
import numbers
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic


def add(workdir: pathlib.Path, of: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Add a line: the date, what was evaluated (`of`), and every number and text of the results."""
    flat = {key: _cell(value) for key, value in schema.flatten(results).items()}
    row = {"date": time.strftime("%Y-%m-%dT%H:%M:%S"), **of}
    row |= {key: value for key, value in flat.items() if value is not None}
    path = workdir / "results.csv"
    # A tool that watches may judge beside a stage.
    with (workdir / ".results.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
        # Columns of all lines: figures came and went between evaluations.
        names = list(dict.fromkeys(name for line in [*before, row] for name in line))
        text = io.StringIO()
        # csv would end lines as on Windows.
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*before, row])
        atomic.write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    """What stands in a column; None for what is no column of a table."""
    # Python counts a bool as a number.
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | numbers.Real | tuple):
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else value
