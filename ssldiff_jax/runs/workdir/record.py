"""The record of a stage, `stage.json`: the config and the digests of what is read, noted when it
begins.

Of a training also `changes`, what of its config was changed after which step, and `aside`: what
changes no results, and when that was changed.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import force, provenance, trainings
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)

STOPWATCH = ".seconds.json"
"""In a stage's folder, the seconds that all processes worked on it."""


def begin(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> None:
    """Note what a stage that begins depends on."""
    # Of what it follows that alone which is there: it did without the rest.
    followed = [need for need in table[name].followed(config) if folders.is_done(need)]
    noted = {
        "config": _values(table[name], config),
        "upstream": provenance.upstream(table, name, folders, followed),
    }
    atomic.write_json(
        folders.of_stage(name) / "stage.json", noted | _aside(config, folders, name, {})
    )


def forget_unless_written(name: str, folders: folders_lib.Folders) -> None:
    """Take back the record of a stage that failed before it wrote anything: another config, or
    another request of the name, need not make way for it. The first host alone may call it."""
    folder, saved = folders.of_stage(name), folders.checkpoints(name)
    own = [folder / "stage.json", folder / STOPWATCH]
    # Work beside a stage is replaced anyway, and checkpoints may lie elsewhere.
    if force.is_beside(folder) or (saved.exists() and any(saved.iterdir())):
        return
    if not folder.is_dir() or set(folder.iterdir()) - set(own):
        return
    for path in own:
        path.unlink(missing_ok=True)
    folder.rmdir()


def changes(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> list[trainings.Change]:
    """What the config changes about a stage that was begun, and that it can resume with: a training
    with what may change from a step on; a tool that evaluates a training in progress, with the
    changes of this training.

    Raises WorkdirError for any other difference, and where no step is left to follow a change.
    """
    noted = provenance.stored(folders, name)
    if noted is None:
        return []
    differ = provenance.differences(table, name, config, folders)
    followed = trainings.gone_on_with(config, folders, name, differ)
    for watched in table[name].watches:
        theirs = _changed_on_the_way(folders, watched)
        # From the beginning of the tool, which takes no steps.
        followed += [trainings.Change(0, key, *differ[key]) for key in differ if key in theirs]
    keys = {change.key for change in followed}
    rest = {key: pair for key, pair in differ.items() if key not in keys}
    provenance.refuse(name, config, folders, rest)
    if followed and trainings.section(config, name):
        trainings.require_steps(config, folders, name, followed)
        _require_rate(config, name, trainings.merged(provenance.changed(noted), followed))
    return followed


def _changed_on_the_way(folders: folders_lib.Folders, watched: str) -> set[str]:
    newest = folders.at(watched, force.latest(folders, watched))
    noted = provenance.stored(newest, watched) or {}
    return {change.key for change in provenance.changed(noted)}


def is_other(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> str:
    """What of a stage that was begun is another than the config asks for and cannot become it;
    "" where it resumes."""
    try:
        changes(table, name, config, folders)
        provenance.refuse_outdated(table, name, folders)
    except stage_lib.WorkdirError as error:
        return str(error)
    return ""


def adopt(
    table: stage_lib.Table, name: str, config: run_config.RunConfig, folders: folders_lib.Folders
) -> None:
    """Note what the config changes about a stage that was begun; then it is done no more.

    Raises WorkdirError as `changes`, and where what it reads was rebuilt since.
    """
    new = changes(table, name, config, folders)
    provenance.refuse_outdated(table, name, folders)
    # All hosts have read it before the first one changes it.
    hosts.barrier(f"compared the record of {name}")
    if hosts.is_first() and not folders.borrows(name):
        _note(table, name, config, folders, new)
    hosts.barrier(f"updated the record of {name}")


def _note(
    table: stage_lib.Table,
    name: str,
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    new: list[trainings.Change],
) -> None:
    noted, done = provenance.stored(folders, name), folders.of_stage(name) / "done.json"
    # Nothing begun, or nothing to add: a stage that is done keeps its record.
    if noted is None or (done.exists() and not new):
        return
    record = noted | _aside(config, folders, name, noted.get("aside", {}))
    if new:
        merged = trainings.merged(provenance.changed(noted), new)
        record |= {"config": _values(table[name], config), "changes": _as_json(merged)}
    for change in new:
        _LOG.info("stage %s: from step %d on, %s", name, change.step, change)
    if record != noted:
        atomic.write_json(folders.of_stage(name) / "stage.json", record)
    if new and done.exists():
        _keep_seconds(folders.of_stage(name))
        # The checkpoints stay: the stage goes on from them.
        done.unlink()


def _keep_seconds(folder: pathlib.Path) -> None:
    """Let a resumed stage count on from what was counted, in a folder that holds no stopwatch
    yet."""
    path = folder / STOPWATCH
    if not path.exists():
        done = atomic.read_json(folder / "done.json")
        atomic.write_json(path, {"seconds": done["seconds"], "peak": done["peak_rss_mb"]})


def _values(stage: stage_lib.Stage, config: run_config.RunConfig) -> dict[str, Any]:
    return provenance.values(stage, config, stage.inputs(config))


def _as_json(entries: list[trainings.Change]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(change) for change in entries]


def _require_rate(config: run_config.RunConfig, name: str, history: list[trainings.Change]) -> None:
    """Refuse more steps after a decay that is over."""
    train = trainings.section(config, name)
    flat = schema.flatten({name: {"train": provenance.plain(train)}})
    try:
        train.optimizer.rate(train.num_steps, trainings.past(flat, name, history))
    except ValueError as error:
        raise stage_lib.WorkdirError(f"config.{name}.train.{error}") from error


def _aside(
    config: run_config.RunConfig, folders: folders_lib.Folders, name: str, before: Mapping[str, Any]
) -> dict[str, Any]:
    """What changes no results of a training as it is, and when it was changed."""
    train = trainings.section(config, name)
    if train is None:
        return {}
    step = trainings.steps_done(folders, name) or 0
    harmless = {"mesh": config.mesh, "data": {"loader": config.data.loader}, name: {"train": train}}
    kinds, flat = trainings.kinds(config, name), schema.flatten(_everything(harmless))
    now = {key: value for key, value in flat.items() if kinds.get(key, "free") == "free"}
    was = before.get("values", now)
    new = [
        trainings.Change(step, key, was.get(key), now[key])
        for key in now
        if was.get(key) != now[key]
    ]
    old = [trainings.Change(**change) for change in before.get("changes", ())]
    merged = trainings.merged(old, new)
    return {"aside": {"values": now, "changes": _as_json(merged)}}


def _everything(values: Any) -> Any:
    """As JSON gives it back, all fields of dataclasses."""
    if dataclasses.is_dataclass(values):
        values = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    if isinstance(values, Mapping):
        return {str(key): _everything(value) for key, value in values.items()}
    return list(values) if isinstance(values, tuple) else values
