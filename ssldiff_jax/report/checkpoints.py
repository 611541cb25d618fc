"""Curves over the checkpoints of a training, as the tool `watch` evaluated them.

`watch/results.json`, optional: `{"steps": [{"step": 100, "patches": {"judge": {"frechet":
{"corrected": 0.04, "low": 0.03, "high": 0.05, "uncorrected": 0.06, "interval": …}}}}]}`; of too few
patches for an interval the curve is that of the uncorrected distance.
"""

import html
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, curves, goals


def part(workdir: pathlib.Path) -> str:
    """A chart for every feature network; empty where no checkpoint was evaluated."""
    path = workdir / "watch" / "results.json"
    steps = atomic.read_json(path)["steps"] if path.exists() else []
    rows: dict[str, list[curves.Row]] = {}
    for entry in steps:
        for name, figures in entry["patches"].items():
            rows.setdefault(name, []).extend(_row(entry["step"], figures["frechet"]))
    rows = {name: points for name, points in rows.items() if points}
    if not rows:
        return ""
    figures = "".join(_figure(name, points) for name, points in rows.items())
    return (
        '<p class="hint">Fréchet distance between held-out patches and patches generated from '
        "their embeddings by every checkpoint; 0 is ideal. Corrected for the bias of small "
        "samples, with 95 % intervals; where patches are too few for that, uncorrected and "
        "without an interval."
        f'</p><div class="studies">{figures}</div>'
    )


def _row(step: int, frechet: Mapping[str, Any]) -> list[curves.Row]:
    """A point of the curve; none of a step that has no distance at all."""
    value = goals.point(frechet)
    if value is not None:
        return [curves.Row(step, value, frechet["low"], frechet["high"], "generated patches")]
    value = frechet["uncorrected"]
    if value is None:
        return []
    # A band without width: there is no interval.
    return [curves.Row(step, value, value, value, f"uncorrected; {frechet['interval']}")]


def _figure(name: str, rows: list[curves.Row]) -> str:
    last = rows[-1]
    chart = curves.chart(rows, label=f"Fréchet distance by {name} over steps", x_title="steps")
    return (
        f"<figure><figcaption><b>{html.escape(name)}</b> {charts.number(last.mean)} "
        f"<small>at step {last.x:,.0f}</small></figcaption>{chart}</figure>"
    )
