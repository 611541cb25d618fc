"""Run one stage: skip it where it is done, resume it where it was cut off."""

import contextlib
import dataclasses
import datetime
import functools
import logging
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from ssldiff_jax.core import blas, memory
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import environment
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.command import shortage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import force as rebuilding
from ssldiff_jax.runs.workdir import forced_command, lock, provenance, record, request_folders
from ssldiff_jax.train import hosts, stopwatch

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StageRunner:
    """Runs stages of one command, of which those in `force` are made again."""

    table: stage_lib.Table
    context: stage_lib.Context
    force: frozenset[str]
    command: forced_command.Command

    def run(self, name: str) -> pathlib.Path | None:
        """Run a stage where it is not done or is run again; returns its folder, None where it was
        a dry run."""
        stage, context = self.table[name], self.context
        _require_upstream(self.table, name, context.config, context.folders)
        place = self._place(name)
        # Hosts look at a shared folder one after the other: a number may be taken in between.
        hosts.require_same(f"folder for stage {name}", place.name)
        context = context.at(name, place)
        if stage.is_dry_run(context.config):
            _dry_run(stage, name, context)
            return None
        # Not of a dry run: it writes nothing.
        with lock.held(place):
            _work_on(self.table, name, context, self.command, forced=self._is_forced(name))
        return place

    def is_settled(self, name: str) -> bool:
        """Whether a stage is done, and nothing about it is asked to change."""
        place, config = self._place(name), self.context.config
        if self._is_forced(name) or not (place / "done.json").exists():
            return False
        return not record.changes(self.table, name, config, self.context.folders.at(name, place))

    def _is_forced(self, name: str) -> bool:
        return name in self.force or self.table[name].always

    def _place(self, name: str) -> pathlib.Path:
        config, folders = self.context.config, self.context.folders
        forced = self._is_forced(name)
        return request_folders.placed(self.table, name, config, folders, forced=forced)


RunAll: TypeAlias = Callable[[StageRunner, Sequence[str]], dict[str, pathlib.Path | None]]
"""Runs stages, named in the order of the table, and returns their folders."""


def one_after_another(stages: StageRunner, chosen: Sequence[str]) -> dict[str, pathlib.Path | None]:
    """Run stages in this process, or with all hosts, in the order of the table."""
    made = {}
    for name in chosen:
        made[name] = stages.run(name)
        hosts.stop_between(f"after stage {name}")
    return made


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

    Raises what the stage raises; a FoundError when the stage is in its place. One that fails
    before it wrote anything leaves nothing: its command may be corrected.
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
    except Exception:
        if hosts.is_first():
            record.forget_unless_written(name, working.folders)
        raise
    # A folder moves only when no host writes into it.
    hosts.barrier(f"all hosts finished the work of {name}")
    finish(facts)
    hosts.barrier(f"{name} is done")


def _stopwatch(folder: pathlib.Path) -> stopwatch.Stopwatch:
    """Of the work in a folder, by all processes that work or worked on it."""
    # Else a stage has the peak of one before it.
    memory.reset_peak()
    path = folder / record.STOPWATCH if hosts.is_first() else None
    return stopwatch.Stopwatch(path, peak=memory.peak_rss_mb)


def _work(stage: stage_lib.Stage, name: str, context: stage_lib.Context) -> dict[str, Any] | None:
    with shortage.reported(name, stage, context.config, context.folder(name)), _blas(stage):
        if stage.on == "all":
            return stage.run(context)
        return hosts.on_first_host(f"stage {name}", lambda: stage.run(context.here))


def _blas(stage: stage_lib.Stage) -> contextlib.AbstractContextManager[None]:
    """One thread of OpenBLAS for the steps of a CPU, which share its cores: its threads would wait
    for one another by spinning, and what products are rounded to depends on how many there are. A
    tool, or a machine with an accelerator, has all cores for its products."""
    shares = jax.default_backend() == "cpu" and not stage.tool
    return blas.one_thread() if shares else contextlib.nullcontext()


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
        if hosts.is_first():
            _remove_unfinished(folder)
        # Before any host begins a file of its own.
        hosts.barrier(f"looked through the folder of {name}")
        return
    # One that is run again has a name of its own in the bucket.
    if not rebuilding.is_beside(folder):
        _require_no_checkpoints(name, folders)
    if hosts.is_first():
        rebuilding.note_bucket(name, folders)
        record.begin(table, name, config, folders)
    hosts.barrier(f"wrote the record of {name}")


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Make room where a killed process left files half written; its lock is held."""
    paths = list(atomic.unfinished(folder))
    size = atomic.remove(paths)
    if paths:
        _LOG.info("%d unfinished files of %.1f MB are removed", len(paths), size / 1e6)


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
            "finished": _now(),
            "versions": environment.versions(),
            "machine": environment.describe_machine(),
            "facts": facts,
        }
        | ({"command": this.token} if this.token else {}),
    )
    rebuilding.settle(table, name, folders)


def _now() -> str:
    """To the millisecond: stages that ran one after another must not seem to overlap."""
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
