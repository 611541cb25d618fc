"""The figures of a run that the README shows, with their goals: as JSON and as Markdown."""

import pathlib
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ssldiff_jax.core import pixel_units
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import goals


def collect(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What `report/figures.json` holds of the `metrics` of a run: those figures of `goals.ROWS`
    that it has, with values, goal and the columns that miss it; and what the run was."""
    environment = metrics["environment"]
    return {
        "figures": rows(metrics),
        "date": metrics["date"],
        "seed": metrics["seed"],
        "config_digest": metrics["config_digest"],
        "machine": environment["machine"],
        "versions": environment["versions"],
        "data": metrics["data"],
        "stages": metrics["stages"],
    }


def rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of `goals.ROWS` that a run has: name, goal, values by column, and the columns
    that miss the goal."""
    known = {**metrics, **_derived(metrics)}
    figures = []
    for row in goals.ROWS:
        values = {
            encoder_name: [at(known, key) for key in getattr(row, encoder_name)]
            for encoder_name in goals.ENCODERS
        }
        values = {
            encoder_name: estimates
            for encoder_name, estimates in values.items()
            if estimates and estimates[0] is not None
        }
        if values:
            missed = [
                encoder_name
                for encoder_name, estimates in values.items()
                if not row.aim(encoder_name).is_met(estimates)
            ]
            figures.append({"name": row.name, "goal": row.aims, **values, "missed": missed})
    return figures


def of_run(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What stage `report` wrote of a run; None where it did not."""
    path = workdir / "report" / "figures.json"
    return atomic.read_json(path) if path.exists() else None


def _derived(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Figures that take more than one of the metrics."""
    seen = {"encoder": metrics, "judge": metrics["judge"] or {}, **(metrics["outside"] or {})}
    cells = [rows * cols for rows, cols in metrics["data"]["lattices"]]
    elapsed, setup = metrics["elapsed"], metrics["setup_seconds"]
    whole = None if setup is None else (elapsed["seconds"] + setup) / 60
    # The first alone includes compilation.
    images = dict(zip(("first", "next"), metrics["large_images"], strict=False))
    return {
        "retrieval": {encoder_name: _retrieval(quality) for encoder_name, quality in seen.items()}
        # Every cell is retrieved among those of its region.
        | {"chance": len(cells) / sum(cells)},
        "cost": {
            "stage_minutes": elapsed["seconds"] / 60,
            "minutes": whole,
            # MiB to GB.
            "peak_gb": elapsed["peak_rss_mb"] * 2**20 / 1e9,
        },
        **images,
    }


def _retrieval(quality: Mapping[str, Any]) -> dict[str, float] | None:
    """The part of cells that were found, with its 95 % interval (Wilson 1927) as if cells were
    independent."""
    # Not at the top: a machine that only computes need not have it.
    from scipy import stats

    if quality.get("cell_retrieval_top1") is None:
        return None
    value, count = quality["cell_retrieval_top1"], quality["num_cells"]
    interval = stats.binomtest(round(value * count), count).proportion_ci(0.95, "wilson")
    # At 0 and 1 an end is the value itself, beyond rounding.
    low, high = min(float(interval.low), value), max(float(interval.high), value)
    return {"value": value, "low": low, "high": high}


def at(values: Any, key: str) -> Any:
    """What is at "a.b" of nested mappings; None where nothing is."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


class Shown:
    """A number, estimate or group of numbers that a format writes by the rules of a number."""

    def __init__(self, value: Any):
        self._value = value

    def __format__(self, spec: str) -> str:
        if self._value is None:
            return "–"
        if goals.is_estimate(self._value):
            return said_estimate(self._value, lambda value: number(value, spec))
        return ", ".join(number(point, spec) for point in goals.points(self._value))


def said_estimate(
    estimate: Mapping[str, Any], number: Callable[[float], str], between: str = "({} … {})"
) -> str:
    """A figure and its interval, or, of too few vectors, what there is and why it is no more."""
    point = goals.point(estimate)
    if point is None:
        uncorrected = estimate.get("uncorrected")
        had = "" if uncorrected is None else f"{number(uncorrected)} uncorrected; "
        return f"{had}{estimate['interval']}"
    if estimate["low"] is None:
        return f"{number(point)}; {estimate['interval']}"
    return f"{number(point)} {between.format(number(estimate['low']), number(estimate['high']))}"


def number(value: float, spec: str) -> str:
    """A number in a format, its minus as long as it should be."""
    return format(value, spec).replace("-", "−")


def markdown(collected: Mapping[str, Any]) -> str:
    """The README's block of what `collect` gives: the machine, the table, seconds of stages."""
    seconds = ", ".join(
        f"{name} {cost['seconds']:.0f}" for name, cost in collected["stages"].items()
    )
    costs = textwrap.fill(f"Seconds for each stage: {seconds}.", 104, break_on_hyphens=False)
    return f"{origin(collected)}\n\n{table(collected)}\n\n{costs}\n"


def table(collected: Mapping[str, Any]) -> str:
    """The figures with values, intervals and goals, as Markdown."""
    texts = {row.name: row.text for row in goals.ROWS}
    rows_ = ["| figure | encoder | judge | goal |", "|---|---|---|---|"]
    for figure in collected["figures"]:
        cells = [
            _cell(figure, encoder_name, texts.get(figure["name"]))
            for encoder_name in goals.ENCODERS
        ]
        rows_.append(f"| {figure['name']} | {' | '.join(cells)} | {figure['goal']} |")
    return "\n".join(rows_)


def lines(collected: Mapping[str, Any], count: int) -> list[str]:
    """The first figures of what `collect` gives, each as a line with its columns and its goal."""
    texts = {row.name: row.text for row in goals.ROWS}
    said = []
    # A report made before a figure had its name is shown too.
    known = [figure for figure in collected["figures"] if figure["name"] in texts]
    for figure in known[:count]:
        cells = [
            f"{cell} by the {encoder_name}"
            for encoder_name in goals.ENCODERS
            if (cell := _cell(figure, encoder_name, texts[figure["name"]]))
        ]
        aim = "" if figure["goal"] == str(goals.Goal()) else f" (goal {figure['goal']})"
        said.append(f"{figure['name']}: {', '.join(cells)}{aim}")
    return said


def _cell(figure: Mapping[str, Any], encoder_name: str, text: str) -> str:
    if encoder_name not in figure:
        return ""
    said = text.format(*map(Shown, figure[encoder_name]))
    return f"{goals.MISSED if encoder_name in figure['missed'] else ''}{said}"


def origin(collected: Mapping[str, Any]) -> str:
    """Of what machine, day and data the figures are."""
    data = collected["data"]
    cells = sum(rows * cols for rows, cols in data["lattices"])
    scale = f" at {pixel_units.per_pixel(data['mpp'])}" if data["mpp"] else ""
    size = f"{data['patch_px']} px{scale}"
    return (
        f"{hardware(collected['machine'])}; {collected['date']}, "
        f"jax {collected['versions']['jax']}, seed {collected['seed']}.\n"
        f"{len(data['lattices'])} held-out images together, {cells} cells of {size}."
    )


def hardware(machine: Mapping[str, Any]) -> str:
    """Cores, processor, memory and accelerators of a machine, as `environment.json` has it."""
    count, backend = len(machine["devices"]), machine["backend"]
    devices = "no accelerator" if backend == "cpu" else f"{count} × {backend}"
    return (
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']:.0f} GB, "
        f"{devices}"
    )
