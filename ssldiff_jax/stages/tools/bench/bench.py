"""Tool `bench`: what the config's models cost on this machine, as rows of `results.json`.

Weights are random (the part `evaluation` takes the run's where it has them): only time and memory
are looked at. Each part has a process of its own, so that one that hangs or runs out of memory
costs no other its figures; this process leaves the devices to them.
"""

import pathlib
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage
from ssldiff_jax.stages.tools.bench import parts, results, supervise


def run(context: stage.Context) -> dict[str, Any]:
    """Measure the parts that `bench.parts` names; each figure is logged and written as it comes.

    Raises ValueError where nothing at all could be measured.
    """
    config, folder = context.config, context.folder("bench")
    measured = results.Results(folder)
    orders = [
        parts.Order(part, config, context.workdir.absolute(), folder.absolute())
        for part in parts.of_config(config)
    ]
    place = context.workdir / "bench"
    if _asks_the_same(place, folder):
        measured.go_on_from(place, [order.part.name for order in orders])
    limits = supervise.Limits(config.bench.limit_s, config.bench.total_s)
    supervise.run(orders, limits, measured)
    if orders and len(measured) == len(measured.failed):
        raise ValueError(f"nothing could be measured: see results.json and log.txt in {folder}")
    return {"rows": len(measured), "failed": measured.failed}


def _asks_the_same(place: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether an earlier call, whose rows lie in `place`, had the config of the one at hand."""
    stages = [path / "stage.json" for path in (place, folder)]
    if place == folder or not all(path.exists() for path in stages):
        return False
    before, now = (atomic.read_json(path)["config"] for path in stages)
    return before == now
