"""Tool `bench`: what the config's models cost on this machine, as rows of `results.json`.

Weights are random (the part `evaluation` takes the run's where it has them): only time and memory
are looked at. Each part has a process of its own, so that one that hangs or runs out of memory
costs no other its figures; this process leaves the devices to them.
"""

from typing import Any

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
    limits = supervise.Limits(config.bench.limit_s, config.bench.total_s)
    supervise.run(orders, limits, measured)
    if orders and len(measured) == len(measured.failed):
        raise ValueError(f"nothing could be measured: see results.json and log.txt in {folder}")
    return {"rows": len(measured), "failed": measured.failed}
