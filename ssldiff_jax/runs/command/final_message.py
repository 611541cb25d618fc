"""The last lines of a command: what it made, and where that is."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures
from ssldiff_jax.runs import stage as stage_lib

# The first rows of the table of goals: similarity, retrieval, distance.
_HEADLINES = 3

Facts = Mapping[str, Any]


def lines(table: stage_lib.Table, made: Mapping[str, pathlib.Path]) -> list[str]:
    """Of the stages of a command, by name with their folders: the lines of those that have
    an ending, or else the folders."""
    endings = [
        f"{name}: {line}"
        for name, folder in made.items()
        if (ending := table[name].ending) is not None
        for line in ending(folder, atomic.read_json(folder / "done.json")["facts"])
    ]
    # Where a step has something to show, folders of the others would hide it.
    return endings or [f"{name}: {folder}" for name, folder in made.items()]


def paths(*patterns: str) -> Callable[[pathlib.Path, Facts], Sequence[str]]:
    """An ending that lists the files of a stage that the patterns find."""

    def ending(folder: pathlib.Path, facts: Facts) -> list[str]:
        return [str(path) for pattern in patterns for path in sorted(folder.glob(pattern))]

    return ending


def of_report(folder: pathlib.Path, facts: Facts) -> list[str]:
    """The first figures of the report, and its page."""
    headlines = figures.lines(atomic.read_json(folder / "figures.json"), _HEADLINES)
    return [*headlines, str(folder / "index.html")]


def of_compare(folder: pathlib.Path, facts: Facts) -> list[str]:
    """The Fréchet distance by every network with its interval, or why it has none, and where the
    rest is."""
    distances = [
        f"Fréchet distance by {name} {figures.Shown(distance):.4g}"
        for name, distance in facts.items()
    ]
    return [*distances, str(folder / "results.json")]


def of_verify(folder: pathlib.Path, facts: Facts) -> list[str]:
    """How much was read again."""
    counts = ", ".join(f"{count} of {name}" for name, count in facts["counts"].items())
    return [f"all stored data is intact ({counts})", str(folder / "results.json")]
