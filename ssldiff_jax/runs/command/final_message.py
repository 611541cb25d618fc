"""The last lines of a command: what it made, and where that is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures
from ssldiff_jax.runs import stage as stage_lib

_HEADLINES = 3

Facts = Mapping[str, Any]


def lines(table: stage_lib.Table, contexts: Mapping[str, stage_lib.Context]) -> list[str]:
    """Of the stages of a command, by name with the context that has their folder: the lines of
    those that have an ending, or else the folders."""
    endings = [
        f"{name}: {line}"
        for name, context in contexts.items()
        if (ending := table[name].ending) is not None
        for line in ending(context, _facts(context, name))
    ]
    return endings or [f"{name}: {context.folder(name)}" for name, context in contexts.items()]


def _facts(context: stage_lib.Context, name: str) -> Facts:
    return atomic.read_json(context.folder(name) / "done.json")["facts"]


def paths(name: str, *patterns: str) -> Callable[[stage_lib.Context, Facts], Sequence[str]]:
    """An ending that lists the files of the stage `name` that the patterns find."""

    def ending(context: stage_lib.Context, facts: Facts) -> list[str]:
        folder = context.folder(name)
        return [str(path) for pattern in patterns for path in sorted(folder.glob(pattern))]

    return ending


def of_report(context: stage_lib.Context, facts: Facts) -> list[str]:
    """The first figures of the report, and its page."""
    folder = context.folder("report")
    headlines = figures.lines(atomic.read_json(folder / "figures.json"), _HEADLINES)
    return [*headlines, str(folder / "index.html")]


def of_compare(context: stage_lib.Context, facts: Facts) -> list[str]:
    """The Fréchet distance by every network with its interval, or why it has none, and where the
    rest is."""
    distances = [
        f"Fréchet distance by {name} {figures.Shown(distance):.4g}"
        for name, distance in facts.items()
    ]
    return [*distances, str(context.folder("compare") / "results.json")]


def of_verify(context: stage_lib.Context, facts: Facts) -> list[str]:
    """How much was read again."""
    counts = ", ".join(f"{count} of {name}" for name, count in facts["counts"].items())
    return [f"all stored data is intact ({counts})", str(context.folder("verify") / "results.json")]
