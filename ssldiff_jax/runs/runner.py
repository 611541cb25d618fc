"""Run stages: skip what is done, resume what was cut off, refuse to mix two configs."""

import dataclasses
import functools
import logging
import pathlib
import tempfile
import time
from typing import Any

import jax

from ssldiff_jax.core import memory
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import environment
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.command import final_message, shortage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import force as rebuilding
from ssldiff_jax.runs.workdir import (
    forced_command,
    lock,
    outdated,
    provenance,
    record,
    request_folders,
)
from ssldiff_jax.train import hosts, stopwatch
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
    chosen, and for one that is to be run again but not chosen.
    """
    if force - set(chosen):
        raise stage_lib.WorkdirError(
            f"config.force must be of the stages {','.join(chosen)}, got "
            f"{','.join(sorted(force - set(chosen)))}; choose it with --config.stages"
        )
    # A step of these would write into the other run's folder.
    borrowed = [name for name in chosen if context.folders.borrows(name)]
    if context.artifacts.of_models.folders.workdir != context.workdir and borrowed:
        raise stage_lib.WorkdirError(
            "config.stages must be stages that use the models of "
            f"{context.folders.models}, got {','.join(borrowed)}, which would train them"
        )
    rebuilding.recover(table, context.folders)
    for name in chosen:
        _check_stage(table, name, context.config, context.folders, chosen, force)
    outdated.refuse(table, chosen, context.config, context.folders, force)


def _check_stage(
    table: stage_lib.Table,
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    chosen: list[str],
    force: set[str],
) -> None:
    stage = table[name]
    for need in stage.reads(folders):
        if need not in chosen:
            provenance.require(table, need, config, folders, wanted_by=name)
    for followed in stage.follows:
        provenance.refuse_foreign(table, followed, config, folders)
    for watched in stage.watches:
        newest = folders.at(watched, rebuilding.latest(folders, watched))
        provenance.refuse_foreign(table, watched, config, newest)
    forced = name in force or stage.always
    place = request_folders.placed(table, name, config, folders, forced=forced)
    if not forced:
        record.changes(table, name, config, folders.at(name, place))
    if forced or not (place / "done.json").exists():
        # Files that are missing are missed now, not after the stages before.
        stage.inputs(config)


def is_dry_run(table: stage_lib.Table, config: run_config.RunConfig, chosen: list[str]) -> bool:
    """Whether the chosen stages are dry runs."""
    return all(table[name].is_dry_run(config) for name in chosen)


def run_stages(
    table: stage_lib.Table,
    context: stage_lib.Context,
    chosen: list[str],
    force: set[str],
) -> None:
    """Run the chosen stages in the order of the table, and print what they made and where."""
    rebuilding.recover(table, context.folders)
    # A dry run replaces nothing, so nothing of it is forced.
    dry = {name for name in chosen if table[name].is_dry_run(context.config)}
    rebuilt = force.intersection(chosen) - dry
    this = forced_command.Command.open(table, context.config, context.workdir, chosen, rebuilt)
    made = {}
    for name in table:
        if name in chosen:
            made[name] = _run_stage(table, name, context, force, this)
            hosts.stop_between(name)
    this.end()
    if hosts.is_first():
        for line in final_message.lines(table, {name: at for name, at in made.items() if at}):
            _LOG.info("%s", line)


def _run_stage(
    table: stage_lib.Table,
    name: str,
    context: stage_lib.Context,
    force: set[str],
    this: forced_command.Command,
) -> pathlib.Path | None:
    """Run a stage where it is not done or is run again; returns its folder, None where it was
    a dry run."""
    stage, config, folders = table[name], context.config, context.folders
    _require_upstream(table, name, config, folders)
    forced = name in force or stage.always
    place = request_folders.placed(table, name, config, folders, forced=forced)
    # Hosts look at a shared folder one after the other: a number may have been taken in between.
    hosts.require_same(f"folder for stage {name}", place.name)
    context = context.at(name, place)
    if stage.is_dry_run(config):
        _dry_run(stage, name, context)
        return None
    with lock.held(place):
        _work_on(table, name, context, this, forced=forced)
    return place


def _work_on(
    table: stage_lib.Table,
    name: str,
    context: stage_lib.Context,
    this: forced_command.Command,
    *,
    forced: bool,
) -> None:
    place = context.folder(name)
    forced = table[name].always or (forced and not this.has_made(name, place))
    working = context.at(name, rebuilding.beside(place)) if forced else context
    if forced:
        _drop_other(table, name, working.config, working.folders)
    record.adopt(table, name, working.config, working.folders)
    if not forced and (place / "done.json").exists():
        _LOG.info("stage %s is done", name)
    else:
        _make(table, name, context, working, this)


def _require_upstream(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> None:
    reads = table[name].reads(folders)
    for need in reads:
        provenance.require(table, need, config, folders, wanted_by=name)
    read = {need: atomic.read_json(folders.of_stage(need) / "done.json") for need in reads}
    hosts.require_same(f"data for stage {name}", read)


def _dry_run(stage: stage_lib.Stage, name: str, context: stage_lib.Context) -> None:
    """Let a stage say what it would do, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        _work(stage, name, context.at(name, pathlib.Path(folder)))
    _LOG.info("stage %s was a dry run; nothing is written", name)


def _drop_other(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> None:
    """Make way beside a stage where something else was begun to take its place."""
    changed = record.is_other(table, name, config, folders)
    if changed:
        what = "; ".join(provenance.changes(table, name, config, folders)[:4]) or changed
        _LOG.warning("unfinished work in %s is replaced (%s)", folders.of_stage(name), what)
    # No host may still be looking when it goes.
    hosts.barrier(f"checked the new folder of {name}")
    if changed and hosts.is_first():
        rebuilding.clear(name, folders)
    hosts.barrier(f"cleared the new folder of {name}")


def _make(
    table: stage_lib.Table,
    name: str,
    context: stage_lib.Context,
    working: stage_lib.Context,
    this: forced_command.Command,
) -> None:
    """Begin or resume a stage, and let it take its place when it is done.

    Raises what the stage raises; a FoundError when the stage is in its place.
    """
    _begin(table, name, working.config, working.folders)
    watch = _stopwatch(working.folder(name))
    finish = functools.partial(_finish, table, name, working.folders, context.folders, watch, this)
    try:
        with watch:
            facts = _work(table[name], name, working)
    except stage_lib.FoundError as error:
        # The work is done, and is not done again; only its verdict is bad.
        finish(error.facts)
        raise
    # A folder moves only when no host writes into it.
    hosts.barrier(f"all hosts finished the work of {name}")
    finish(facts)
    hosts.barrier(f"{name} is done")


def _stopwatch(folder: pathlib.Path) -> stopwatch.Stopwatch:
    """Of the work in a folder, by all processes that work or worked on it."""
    memory.reset_peak()
    path = folder / record.STOPWATCH if hosts.is_first() else None
    return stopwatch.Stopwatch(path, peak=memory.peak_rss_mb)


def _work(stage: stage_lib.Stage, name: str, context: stage_lib.Context) -> dict[str, Any] | None:
    with shortage.reported(name, stage, context.config, context.folder(name)):
        if stage.on == "all":
            return stage.run(context)
        return hosts.on_first_host(f"stage {name}", lambda: stage.run(_alone(context)))


def _begin(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> None:
    """Note what a stage depends on, unless it was begun before."""
    folder = folders.of_stage(name)
    was_begun = (folder / "stage.json").exists()
    # All hosts have looked before the first one writes.
    hosts.barrier(f"checked the folder of {name}")
    _LOG.info("stage %s %s", name, "resumes" if was_begun else "starts")
    if was_begun:
        return
    if not rebuilding.is_beside(folder):
        _require_no_checkpoints(name, folders)
    if hosts.is_first():
        rebuilding.note_bucket(name, folders)
        record.begin(table, name, config, folders)
    hosts.barrier(f"wrote the record of {name}")


def _require_no_checkpoints(name: str, folders: folders_lib.Folders) -> None:
    saved = folders.checkpoints(name)
    if saved.exists() and any(saved.iterdir()):
        raise stage_lib.WorkdirError(
            f"{saved} must hold no checkpoints before stage {name!r} of {folders.workdir} starts, "
            "got those of another run; choose another runtime.checkpoints, or "
            f"--config.force={name}"
        )


def _finish(
    table: stage_lib.Table,
    name: str,
    working: folders_lib.Folders,
    folders: folders_lib.Folders,
    watch: stopwatch.Stopwatch,
    this: forced_command.Command,
    facts: dict[str, Any] | None,
) -> None:
    """Write down that a stage is done, and move it from where it was worked on to its place."""
    if not hosts.is_first():
        return
    seconds, peak = watch.seconds, watch.peak
    _LOG.info("stage %s took %.1f s, peak memory %.0f MB", name, seconds, peak)
    atomic.write_json(
        working.of_stage(name) / "done.json",
        {
            "digest": provenance.digest(table, name, working),
            "seconds": round(seconds, 2),
            "peak_rss_mb": round(peak),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": environment.versions(),
            "machine": environment.describe_machine(),
            "facts": facts,
        }
        | ({"command": this.token} if this.token else {}),
    )
    rebuilding.settle(table, name, folders)


def _alone(context: stage_lib.Context) -> stage_lib.Context:
    """The same on the devices of this host."""
    if jax.process_count() == 1:
        return context
    # The run's mesh has devices of hosts that do not take part.
    here = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()), jax.local_devices())
    return dataclasses.replace(context, mesh=here)
