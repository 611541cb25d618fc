"""`results.csv`: a line for each evaluation, which outlives the stages that wrote it."""

import csv
import io
import time
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.stages import stage


def add(context: stage.Context, of: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Add a line: the date, what was judged (`of`), and every number of the results."""
    flat = {
        key: value
        for key, value in config_lib.flatten(results).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    row = {"date": time.strftime("%Y-%m-%dT%H:%M:%S"), **of, **flat}
    path = context.workdir / "results.csv"
    before = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
    names = list(dict.fromkeys(name for line in [*before, row] for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*before, row])
    files.write_text(path, text.getvalue())
