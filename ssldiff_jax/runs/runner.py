"""Run stages: skip what is done, resume what was cut off, refuse to mix two configs."""

import logging

from ssldiff_jax.runs import one_stage
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.command import final_message
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import force as rebuilding
from ssldiff_jax.runs.workdir import (
    forced_command,
    outdated,
    provenance,
    record,
    request_folders,
)
from ssldiff_jax.train import hosts

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
    for followed in stage.followed(config):
        # One that is chosen is checked itself, and may be made again.
        if followed not in chosen:
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
    *,
    run_all: one_stage.RunAll = one_stage.one_after_another,
) -> None:
    """Run the chosen stages, and print what they made and where."""
    rebuilding.recover(table, context.folders)
    # A dry run replaces nothing, so nothing of it is forced.
    dry = {name for name in chosen if table[name].is_dry_run(context.config)}
    rebuilt = force.intersection(chosen) - dry
    this = forced_command.Command.open(table, context.config, context.workdir, chosen, rebuilt)
    stages = one_stage.StageRunner(table, context, frozenset(force), this)
    made = run_all(stages, [name for name in table if name in chosen])
    this.end()
    if hosts.is_first():
        for line in final_message.lines(table, {name: at for name, at in made.items() if at}):
            _LOG.info("%s", line)
