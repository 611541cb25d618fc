"""Rows of the tool `bench`: each can be understood alone, and is on disk once it is measured."""

import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ssldiff_jax.formats import atomic

Figure: TypeAlias = tuple[str, list[float], str]
"""Name, value of every repetition, and unit."""

Weights: TypeAlias = Literal["random", "random or the run's, as the name says", "none"]
"""What the models of a part computed with."""

_LINES = "results.jsonl"
PROCESS = "process"
"""How the name of the row ends that says how the process of a part ended."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement: the median, and how far apart the quickest and slowest were.

    Attributes:
        weights: of the models that ran.
        failed: why there is no measurement; "" where there is one. `value` is then the seconds
            until it failed.
    """

    name: str
    value: float
    unit: str
    repetitions: int
    spread: float
    hardware: str
    date: str
    weights: str
    failed: str

    @classmethod
    def of(cls, figure: Figure, *, hardware: str, weights: Weights) -> "Row":
        """Of a figure, measured now."""
        name, values, unit = figure
        value_range = max(values) - min(values)
        return cls(
            name, statistics.median(values), unit, len(values), value_range, hardware,
            time.strftime("%Y-%m-%d"), weights, "",
        )  # fmt: skip


def _lines(folder: pathlib.Path) -> list[str]:
    """Whole ones: the last may be half written, where a call was ended."""
    path = folder / _LINES
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.endswith("}")]


class Results:
    """`results.jsonl`, a line for every row in the order of time, and `results.json`, the last row
    of every name. A call that was cut off is gone on with."""

    def __init__(self, folder: pathlib.Path):
        self._lines, self._table = folder / _LINES, folder / "results.json"
        self._rows: dict[str, Mapping[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = _lines(folder)
        self._take(lines)
        if lines:
            # Without half a line, which the next would be added to.
            self._write(lines)

    def go_on_from(self, folder: pathlib.Path, wanted: Sequence[str]) -> None:
        """Take over what an earlier call measured, where it left out some of the parts `wanted`: to
        ask again for what is whole is to have it measured again."""
        earlier = Results(folder)
        if len(self) or not len(earlier) or all(map(earlier.is_done, wanted)):
            return
        lines = _lines(folder)
        self._take(lines)
        self._write(lines)

    def _write(self, lines: Sequence[str]) -> None:
        atomic.write_text(self._lines, "".join(f"{line}\n" for line in lines))

    def _take(self, lines: Sequence[str]) -> None:
        rows = map(json.loads, lines)
        self._rows |= {row["name"]: row for row in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """One more, or another of the same name."""
        values = dataclasses.asdict(row)
        with self._lines.open("a") as file:
            file.write(json.dumps(values) + "\n")
        self._rows[row.name] = values
        atomic.write_json(self._table, list(self._rows.values()))

    def is_done(self, part: str) -> bool:
        """Whether the process of a part ended well."""
        row = self._rows.get(f"{part}/{PROCESS}")
        return row is not None and not row["failed"]

    @property
    def failed(self) -> list[str]:
        """Names of the rows that say why something was not measured."""
        return [name for name, row in self._rows.items() if row["failed"]]
