"""What the tool `bench` measured of the evaluation, as Markdown."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import goals

_GOALS = {
    "patches/s": goals.Goal(low=100),
    "s": goals.Goal(high=30),
    "MB": goals.Goal(high=2000),
}
"""Of features of patches, and of a Fréchet distance."""


def collect(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The rows of `bench/results.json` on the evaluation; None where it has none."""
    folder = workdir / "bench"
    if not (folder / "done.json").exists():
        return None
    rows = atomic.read_json(folder / "results.json")
    measured = [row for row in rows if row["name"].startswith("evaluation/")]
    done = atomic.read_json(folder / "done.json")
    run = {"date": done["finished"][:10], "jax": done["versions"]["jax"]}
    return {"rows": measured, **run} if measured else None


def markdown(collected: Mapping[str, Any]) -> str:
    """A row for every measurement: the median of its repetitions."""
    lines = ["| evaluation | measured | goal |", "|---|---|---|"]
    for row in collected["rows"]:
        _, what, *rest = row["name"].split("/")
        has_goal = row["unit"] == "patches/s" or what.startswith("frechet")
        goal = _GOALS[row["unit"]] if has_goal else None
        missed = goals.MISSED if goal and not goal.is_met([row["value"]]) else ""
        name = f"{what}, {', '.join(rest)}".replace("_", " ")
        value = f"{missed}{row['value']:.3g} {row['unit']}"
        lines.append(f"| {name} | {value} | {goal if goal else '–'} |")
    hardware, count = collected["rows"][0]["hardware"], collected["rows"][0]["repetitions"]
    return (
        f"{hardware}; {collected['date']}, jax {collected['jax']}; medians of {count}.\n\n"
        + "\n".join(lines)
        + "\n"
    )
