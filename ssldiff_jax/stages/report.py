"""Stage `report`: the figures of the run in one file, and a page that shows it."""

import pathlib
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures, page
from ssldiff_jax.report import metrics as metrics_lib
from ssldiff_jax.runs import stage


def run(context: stage.Context) -> dict[str, Any]:
    """Write `metrics.json`, the figures of the README as `figures.json` and `figures.md`, and
    `index.html` with the pictures it shows."""
    folder = context.folder("report")
    metrics = metrics_lib.collect(context.workdir)
    atomic.write_json(folder / "metrics.json", metrics)
    shown = figures.collect(metrics)
    atomic.write_json(folder / "figures.json", shown)
    atomic.write_text(folder / "figures.md", figures.markdown(shown))
    others = [pathlib.Path(path).expanduser() for path in context.config.report.compare]
    page.build(context.workdir, folder, metrics, compare=others)
    return {"config_digest": metrics["config_digest"]}
