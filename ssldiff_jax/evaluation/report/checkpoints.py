"""Curves of a training's checkpoints, as the tool `watch` judged them.

`watch/results.json`, optional: `{"steps": [{"step": 100, "patches": {"judge": {"frechet": {"value":
0.05, "bias": 0.01, "low": 0.03, "high": 0.05}}}}]}`; `low` and `high` end the interval around value
− bias.
"""

import html
import pathlib

from ssldiff_jax.core import files
from ssldiff_jax.evaluation.report import charts, curves


def part(workdir: pathlib.Path) -> str:
    """A chart for every network of features; empty where nothing was watched."""
    path = workdir / "watch" / "results.json"
    steps = files.read_json(path)["steps"] if path.exists() else []
    rows: dict[str, list[curves.Row]] = {}
    for found in steps:
        for name, figures in found["patches"].items():
            of = figures["frechet"]
            mean = max(of["value"] - of["bias"], 0)  # as the ends of its interval are
            row = curves.Row(found["step"], mean, of["low"], of["high"], "drawn again")
            rows.setdefault(name, []).append(row)
    if not rows:
        return ""
    figures = "".join(_figure(name, found) for name, found in rows.items())
    return (
        '<p class="hint">Fréchet distance of held-out patches drawn again by every checkpoint, its '
        f'bias taken off, with 95 % intervals.</p><div class="studies">{figures}</div>'
    )


def _figure(name: str, rows: list[curves.Row]) -> str:
    last = rows[-1]
    drawn = curves.chart(rows, label=f"Fréchet distance by {name} over steps", x_title="steps")
    return (
        f"<figure><figcaption><b>{html.escape(name)}</b> {charts.number(last.mean)} "
        f"<small>at step {last.x:,.0f}</small></figcaption>{drawn}</figure>"
    )
