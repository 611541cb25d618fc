"""Stage `report`: the figures of the run in one file, and a page that shows it."""

import pathlib
from typing import Any

from ssldiff_jax.core import files
from ssldiff_jax.evaluation.report import figures, page
from ssldiff_jax.evaluation.report import metrics as metrics_lib
from ssldiff_jax.stages import stage


def run(context: stage.Context) -> dict[str, Any]:
    """Write `metrics.json`, the figures of the README as `figures.json` and `figures.md`, and
    `index.html` with the pictures it shows."""
    folder = context.folder("report")
    metrics = metrics_lib.collect(context.workdir)
    files.write_json(folder / "metrics.json", metrics)
    shown = figures.collect(metrics)
    files.write_json(folder / "figures.json", shown)
    files.write_text(folder / "figures.md", figures.markdown(shown))
    others = [pathlib.Path(path).expanduser() for path in context.config.report.compare]
    page.build(context.workdir, folder, metrics, compare=others)
    return {"config_digest": metrics["config_digest"]}
