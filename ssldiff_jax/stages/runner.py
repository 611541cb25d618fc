"""Run stages: skip what is done, resume what was cut off, refuse to mix two configs."""

import dataclasses
import logging
import shutil
import time
from typing import Any

import jax
from etils import epath

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.stages import environment, memory, provenance
from ssldiff_jax.stages import stage as stage_lib
from ssldiff_jax.train import hosts
from ssldiff_jax.train import mesh as mesh_lib

_LOG = logging.getLogger(__name__)


def check(
    table: stage_lib.Table,
    context: stage_lib.Context,
    chosen: list[str],
    force: set[str],
) -> None:
    """Refuse, before anything is written, what the chosen stages would refuse later.

    Raises WorkdirError for outputs of another config, for a stage that is read but neither done nor
    chosen, and for one that is to be made anew but not chosen.
    """
    if force - set(chosen):
        raise stage_lib.WorkdirError(
            f"config.force must be of the stages {','.join(chosen)}, got "
            f"{','.join(sorted(force - set(chosen)))}; choose it with --config.stages"
        )
    borrowed = [name for name in chosen if context.borrows(name)]
    if context.of_models is not context and borrowed:
        raise stage_lib.WorkdirError(
            f"config.stages must be of what is done with the models of {context.models}, got "
            f"{','.join(borrowed)}, which make them"
        )
    for name in chosen:
        for need in table[name].needs:
            if need not in chosen:
                provenance.require(table, need, context, wanted_by=name)
        for followed in table[name].follows:
            provenance.refuse_foreign(table, followed, context)
        if name not in force and not table[name].always:
            provenance.refuse_foreign(table, name, context)
            provenance.refuse_outdated(table, name, context, force)
        done = (context.folder(name) / "done.json").exists()
        if not done or name in force or table[name].always:
            # Files that are missing are missed now, not after the stages before.
            table[name].inputs(context.config)


def run_stages(
    table: stage_lib.Table,
    context: stage_lib.Context,
    chosen: list[str],
    force: set[str],
) -> None:
    """Run the chosen stages in the order of the table."""
    for name in table:
        if name in chosen:
            forced = name in force or table[name].always
            _run_stage(table, name, context, forced=forced)
            hosts.stop_between(name)


def parse_names(
    text: str, table: stage_lib.Table, what: str, without: tuple[str, ...] = ()
) -> list[str]:
    """Stage names from a comma-separated list; "all" is every stage that is no tool, and not of
    `without`.

    Raises ConfigError for a name that is no stage.
    """
    names = [n.strip() for n in text.split(",") if n.strip()]
    if names == ["all"]:
        return [name for name, stage in table.items() if not stage.tool and name not in without]
    for name in names:
        if name not in table:
            hint = config_lib.nearest_path(name, dict.fromkeys(table))
            raise config_lib.ConfigError(f"config.{what}: {name!r} is no stage{hint}")
    return names


def _run_stage(
    table: stage_lib.Table, name: str, context: stage_lib.Context, *, forced: bool
) -> None:
    stage = table[name]
    _make_way(table, name, context, forced=forced)
    if (context.folder(name) / "done.json").exists():
        _LOG.info("stage %s is done", name)
        return
    was_begun = _begin(table, name, context)

    memory.reset_peak()
    began = time.monotonic()
    if stage.on == "all":
        facts = stage.run(context)
    else:
        facts = hosts.first_alone(f"stage {name}", lambda: stage.run(_alone(context)))
    if hosts.is_first():
        if facts is not None:
            _finish(table, name, context, facts, time.monotonic() - began)
        elif not was_begun:
            shutil.rmtree(context.folder(name))
    hosts.meet(f"{name} is done")


def _make_way(
    table: stage_lib.Table, name: str, context: stage_lib.Context, *, forced: bool
) -> None:
    """Refuse what does not fit, and delete what is to be made anew."""
    stage = table[name]
    for need in stage.needs:
        provenance.require(table, need, context, wanted_by=name)
    read = {need: files.read_json(context.folder(need) / "done.json") for need in stage.needs}
    hosts.require_same(f"data for stage {name}", read)
    if forced and hosts.is_first():
        for made in (context.checkpoints(name), epath.Path(context.folder(name))):
            if made.exists():
                made.rmtree()
    hosts.meet(f"{name} is begun anew")
    provenance.refuse_foreign(table, name, context)


def _begin(table: stage_lib.Table, name: str, context: stage_lib.Context) -> bool:
    """Note what a stage depends on; returns whether it was begun before."""
    folder, saved = context.folder(name), context.checkpoints(name)
    was_begun = (folder / "stage.json").exists()
    hosts.meet(f"{name} was looked at")
    _LOG.info("stage %s %s", name, "goes on" if was_begun else "starts")
    if was_begun:
        return True
    if saved.exists() and any(saved.iterdir()):
        raise stage_lib.WorkdirError(
            f"{saved} must hold no checkpoints before stage {name!r} of {context.workdir} starts, "
            "got those of another run; choose another runtime.checkpoints, or "
            f"--config.force={name}"
        )
    if hosts.is_first():
        values = provenance.values(table[name], context, table[name].inputs(context.config))
        upstream = provenance.upstream(table, name, context)
        files.write_json(folder / "stage.json", {"config": values, "upstream": upstream})
    return False


def _finish(
    table: stage_lib.Table,
    name: str,
    context: stage_lib.Context,
    facts: dict[str, Any],
    seconds: float,
) -> None:
    peak = memory.peak_rss_mb()
    _LOG.info("stage %s took %.1f s, peak memory %.0f MB", name, seconds, peak)
    files.write_json(
        context.folder(name) / "done.json",
        {
            "digest": provenance.digest(table, name, context),
            "seconds": round(seconds, 2),
            "peak_rss_mb": round(peak),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": environment.versions(),
            "facts": facts,
        },
    )


def _alone(context: stage_lib.Context) -> stage_lib.Context:
    """The same on the devices of this host."""
    if jax.process_count() == 1:
        return context
    here = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()), jax.local_devices())
    return dataclasses.replace(context, mesh=here)
