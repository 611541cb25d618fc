"""Stage `report`: the figures of the run in one file, and a page that shows it."""

from typing import Any

from ssldiff_jax.core import files
from ssldiff_jax.evaluation.report import metrics as metrics_lib
from ssldiff_jax.evaluation.report import page
from ssldiff_jax.stages import runner


def run(context: runner.Context) -> dict[str, Any]:
    """Write `metrics.json`, and `index.html` with the pictures it shows."""
    folder = context.folder("report")
    metrics = metrics_lib.collect(context.workdir)
    files.write_json(folder / "metrics.json", metrics)
    page.build(context.workdir, folder, metrics)
    return {"config_digest": metrics["config_digest"]}
