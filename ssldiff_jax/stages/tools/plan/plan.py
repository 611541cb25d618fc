"""Tool `plan`: what a run will count, store, hold, compute and refuse, before it begins. It trains
and compiles nothing, and needs no accelerator."""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ssldiff_jax.core import estimates, memory
from ssldiff_jax.data import named_slides, patch_list
from ssldiff_jax.data.census import census as census_lib
from ssldiff_jax.data.census import cut
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import amounts, artifacts, checks, environment, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.stages.tools.plan import devices as devices_lib
from ssldiff_jax.stages.tools.plan import facts as facts_lib
from ssldiff_jax.stages.tools.plan import generating, one_image, rates, rows, steps, text

_LOG = logging.getLogger(__name__)

_ROWS: Mapping[str, Callable[[facts_lib.Facts], rows.Row]] = {
    "patches": steps.patches,
    "encoder": steps.encoder,
    "embeddings": steps.embeddings,
    "autoencoder": steps.autoencoder,
    "latents": steps.latents,
    "denoiser": steps.denoiser,
    "distill": steps.distill,
    "sample": generating.sample,
    "judge": steps.judge,
    "evaluate": generating.evaluate,
    "grids": steps.grids,
    "prior": generating.prior,
    "tokens": generating.tokens,
    "imagine": generating.imagine,
    "report": generating.report,
    "generate": one_image.generate,
}

_ABOUT = {
    "units": "bytes, seconds, FLOP (a product and a sum are two), px",
    "basis": "exact: arithmetic on what is known; estimate: from what is named, low and high hold "
    "it with 95 % where they are given",
    "counts": "what the step will report or store",
    "reads": "bytes from disk, by what is read",
    "writes": "bytes that stay on disk, by what is written",
    "host": "bytes of this machine's memory",
    "device": "bytes of the memory of each device; empty where that is the host's",
    "work": "what takes time: FLOP by what computes them, px that are cut or decoded",
    "seconds": "of the step alone on the devices: others may run beside it",
}


class PlanRefusedError(stage.FoundError, checks.RefusedError):
    """What was planned would be refused: reasons, a line each."""


def run(context: stage.Context, table: stage.Table) -> dict[str, Any]:
    """Write `results.json` and print it as a table.

    Raises PlanRefusedError, after that, where the run would be refused.
    """
    config, folders, folder = context.config, context.folders, context.folder("plan")
    is_leading = config.stages.strip() == "all"
    names = _steps(config, folders, table)
    devices = devices_lib.Devices.of(config)
    refusals = [devices.refused] if devices.refused else []
    if not is_leading:  # else this command was checked before
        known = {name: _without_content(name, table[name], config, folders) for name in table}
        planned = dataclasses.replace(context, mesh=devices.mesh)
        asked = checks.Plan.of(known, planned, names, set())
        asked = dataclasses.replace(asked, elsewhere=devices.memory)
        errors = checks.errors_of(asked, planned, set())
        refusals += dict.fromkeys(str(error) for error in errors)
    results = _results(config, folders, devices, names)
    results["refusals"] = refusals
    atomic.write_json(folder / "results.json", results)
    if not is_leading or any(line["state"] == "to do" for line in results["stages"]):
        _LOG.info("what is planned:\n%s", text.of(results))
    about = {"refusals": len(refusals), "seconds": results["total"]["seconds"]["value"]}
    if refusals and not is_leading:
        raise PlanRefusedError("\n".join(refusals), about)
    return about


def _steps(
    config: run_config.RunConfig, folders: folders_lib.Folders, table: stage.Table
) -> list[str]:
    """The steps that the command names beside this tool; all where it names none, and an image
    whose size is asked for: that alone where models are read from files."""
    chosen = [n for n in stage.parse_names(config.stages, table, "stages") if n in _ROWS]
    image = ["generate"] if config.generate.size else []
    if folders.reads_weights and image:
        return chosen or image
    return chosen or [name for name in _ROWS if name != "generate"] + image


def _without_content(
    name: str, row: stage.Stage, config: run_config.RunConfig, folders: folders_lib.Folders
) -> stage.Stage:
    """The stage; of many slides that were never cut, names are enough to be checked."""
    if name != "patches" or (folders.of_stage(name) / "stage.json").exists():
        return row
    if patch_list.is_list(config.data.slides):
        return row
    return dataclasses.replace(row, inputs=lambda config: named_slides.sources(config.data))


def _results(
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    devices: devices_lib.Devices,
    names: list[str],
) -> dict[str, Any]:
    """All but what would be refused."""
    facts = _facts(config, folders, devices)
    measured, earlier = rates.Measured.of(folders.workdir, devices), _earlier(folders.workdir)
    lines = []
    for name in names:
        if folders.is_done(name):
            done = atomic.read_json(folders.of_stage(name) / "done.json")
            taken = {"state": "done", "seconds_taken": done["seconds"]}
            lines.append(earlier.get(name, {"stage": name}) | taken)
        else:
            lines.append({"stage": name, "state": "to do"} | _line(name, facts, measured))
    return {
        "about": _ABOUT,
        "devices": devices.as_json(),
        "machine": environment.describe_machine(),
        "slides": _slides(facts),
        "stages": lines,
        "total": _total(lines),
        "warnings": _warnings(facts, lines),
    }


def _facts(
    config: run_config.RunConfig, folders: folders_lib.Folders, devices: devices_lib.Devices
) -> facts_lib.Facts:
    archive = artifacts.archive_folder(config.data, folders.workdir)
    try:
        if folders.is_done("patches"):
            census = cut.of_stage(folders.of_stage("patches"))
        else:
            census = census_lib.of_config(
                config.data,
                config.embeddings,
                archive,
                config.plan.num_slides,
                amounts.LARGEST_PATCH_PX,
            )
    except (ValueError, OSError, KeyError) as error:
        return facts_lib.Facts(config, folders, devices, None, " ".join(str(error).split()))
    return facts_lib.Facts(config, folders, devices, census, "")


def _earlier(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What an earlier plan said of each step: of those that are done it stays."""
    path = workdir / "plan" / "results.json"
    if not path.exists():
        return {}
    try:
        return {line["stage"]: line for line in atomic.read_json(path)["stages"]}
    except (ValueError, KeyError, TypeError):
        return {}


def _line(name: str, facts: facts_lib.Facts, measured: rates.Measured) -> dict[str, Any]:
    """A step; where an estimate is impossible, why."""
    try:
        row = _ROWS[name](facts)
        if facts.devices.platform == "cpu":
            row = row.on_hosts(facts.devices.count)
        time = measured.of_stage(name, row) or rates.of_table(name, row, facts.devices)
    except Exception as error:  # whatever it is, the run itself may go well
        return {"unknown": " ".join(str(error).split()) or type(error).__name__}
    return {
        **{key: rows.as_json(getattr(row, key)) for key in _NUMBERS},
        "flops": row.flops.as_json(),
        "seconds": time.seconds.as_json(),
        "rate": list(time.sources),
    }


_NUMBERS = ("counts", "reads", "writes", "host", "device", "work")


def _slides(facts: facts_lib.Facts) -> dict[str, Any]:
    """What was looked at, and what could not be used."""
    census = facts.census
    if census is None:
        return {"unknown": facts.uncounted}
    return {
        "named": census.named,
        "looked_at": census.looked_at,
        "unusable": census.unusable.as_json(),
        "reasons": dict(census.reasons),
        "record_bytes": census.record_bytes.as_json(),
    }


def _total(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the steps that are to be done and known."""
    left = [line for line in lines if line["state"] == "to do" and "unknown" not in line]
    sums = {key: _sum(line[key] for line in left) for key in ("seconds", "flops")}
    sums["writes"] = _sum(number for line in left for number in line["writes"].values())
    unknown = [line["stage"] for line in lines if "unknown" in line]
    return {key: number.as_json() for key, number in sums.items()} | {"unknown": unknown}


def _sum(numbers: Iterable[Mapping[str, Any]]) -> estimates.Estimate:
    return estimates.total(map(estimates.Estimate.from_json, numbers))


def _warnings(facts: facts_lib.Facts, lines: list[dict[str, Any]]) -> list[str]:
    """What would go wrong late, as far as estimates can say."""
    devices, config = facts.devices, facts.config
    found = []
    if not devices.are_here:
        found.append(
            f"config.plan.devices={config.plan.devices} are not here: this machine has "
            f"{devices_lib.here()}; their times and memory are planned, not this machine's"
        )
    room = devices.memory
    total = memory.total_gb() * 1e9
    for line in lines:
        if "unknown" in line or line["state"] == "done":
            continue
        needed = _sum(line["device"].values())
        if needed.value > room:
            found.append(
                f"stage {line['stage']}: about {needed.value / 1e9:.1f} GB must fit the "
                f"{room / 1e9:.1f} GB of a device; train.compute.accumulate and smaller batches "
                "need less"
            )
        host = _sum(line["host"].values())
        if devices.are_here and host.value > total:
            found.append(
                f"stage {line['stage']}: about {host.value / 1e9:.1f} GB must fit this machine's "
                f"{total / 1e9:.1f} GB"
            )
    return found + _disk_warnings(facts, lines)


def _disk_warnings(facts: facts_lib.Facts, lines: list[dict[str, Any]]) -> list[str]:
    workdir = facts.folders.workdir.absolute()
    there = next(path for path in (workdir, *workdir.parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, _total(lines)["writes"]["value"] or 0
    if needed <= free:
        return []
    return [
        f"the disk of {there} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB will be "
        "written"
    ]
