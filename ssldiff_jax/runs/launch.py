"""From a config tree to a run: check it whole, write it down, run the stages."""

import logging
import pathlib
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from ssldiff_jax.core import addresses, schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import (
    artifacts,
    checks,
    environment,
    one_stage,
    runner,
    side_by_side,
    stage,
)
from ssldiff_jax.runs.command import scales, shortage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import run_record, stored_config
from ssldiff_jax.train import gone, heartbeat, hosts, loop
from ssldiff_jax.train import mesh as mesh_lib

_LOG = logging.getLogger(__name__)

StoppedError, FailedError = hosts.StoppedError, side_by_side.FailedError
USER_ERRORS = (
    ValueError, OSError, loop.NonFiniteError, hosts.ElsewhereError, gone.GoneError,
    shortage.ShortageError,
)  # fmt: skip
"""What a user can cause, and every error of ours is: printed as one line."""

REFUSALS = (schema.ConfigError, stage.WorkdirError, checks.RefusedError)
"""Those of what a command asks for: their lines say all there is to say."""


def message(error: Exception, workdir: pathlib.Path) -> str:
    """What a command ends with that fails with one of these errors, the one at hand: a line, or one
    for each reason. The traceback of an error that came up in the middle of work lies in the
    workdir, if there is one."""
    lines = "\n".join(f"error: {line}" for line in str(error).splitlines())
    return lines if isinstance(error, REFUSALS) else f"{lines} [details in {_traceback(workdir)}]"


def _traceback(workdir: pathlib.Path) -> pathlib.Path:
    path = workdir / "traceback.txt"
    try:
        path.write_text(traceback.format_exc())
    except OSError:
        handle, name = tempfile.mkstemp(prefix="ssldiff_jax_", suffix=".txt")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        return pathlib.Path(name)
    return path


def _is_elsewhere(table: stage.Table, chosen: list[str]) -> bool:
    """Whether all that is chosen is about other devices than those of this process."""
    return all(table[name].elsewhere for name in chosen)


def _mesh(config: run_config.RunConfig, table: stage.Table, chosen: list[str]) -> Mesh:
    if _is_elsewhere(table, chosen):
        # The config's mesh is one of devices that are not here.
        return mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))
    return mesh_lib.make_mesh(config.mesh)


def _check(table: stage.Table, context: stage.Context, chosen: list[str], force: set[str]) -> None:
    try:
        checks.check(table, context, chosen, force)
    except REFUSALS:
        raise
    except (ValueError, OSError) as error:
        # Nothing has begun, so that there is nothing to look for in a traceback.
        raise checks.RefusedError(str(error)) from error


def launch(
    values: dict[str, Any],
    workdir: pathlib.Path,
    table: stage.Table,
    *,
    words: Sequence[str] = (),
    start: Sequence[str] = (),
) -> str | None:
    """Run the stages of `table` that `values` ask for in `workdir`; `words` are those of the
    command that gave them, if one did; `start` is the command of a process that runs single stages
    (`worker.serve`), without which all run in this one.

    Returns a line about what could not be used, where patches or bags of features were made and not
    all could.
    """
    addresses.require_folders({"workdir": workdir, "config.models": values.get("models", "")})
    if values.get("models"):
        # Read again from other folders.
        models = str(pathlib.Path(values["models"]).expanduser().absolute())
        values = values | {"models": models}
    if (workdir / stored_config.NAME).exists():
        stored_config.read(workdir)  # refuses one of another format before anything is written
    config = schema.build(run_config.RunConfig, values)
    # What is written down, and read by other code than this config's.
    values = scales.in_microns(values)
    addresses.require_folders({"config.data.archive": config.data.archive})
    without = stage.MODELS if config.models else ()
    chosen = stage.parse_names(config.stages, table, "stages", without)
    force = set(stage.parse_names(config.force, table, "force", without))
    # Hosts that computed different things would wait for one another for ever.
    hosts.require_same("config and code", {"config": values, "versions": environment.versions()})
    context = stage.Context(config, workdir, _mesh(config, table, chosen))
    # Each host reads what others wrote.
    hosts.require_shared(workdir)
    # A process may run several commands, between which a remote slide changes. Not imported: a
    # machine that only computes can open no slides, and what was not imported has asked nothing.
    if asked := sys.modules.get("ssldiff_jax.data.slide_source"):
        asked.query_again()
    _check(table, context, chosen, force)
    _LOG.info("workdir: %s", workdir)
    if not _is_elsewhere(table, chosen):
        _LOG.info("devices: %s", context.mesh.devices.ravel().tolist())
    if not runner.is_dry_run(table, config, chosen):
        about = {"versions": environment.versions(), "machine": environment.describe_machine()}
        # After all checks: a command that is refused leaves no trace.
        note = lambda: run_record.note(workdir, values, table, chosen, about, words)
        with shortage.reported_of(workdir):
            hosts.on_first_host("writing to the workdir", note)
    run_all: one_stage.RunAll = one_stage.one_after_another
    # What is done elsewhere shares nothing of this process.
    shared = not _is_elsewhere(table, chosen)
    if start and shared and side_by_side.is_possible(config.runtime, context.mesh):
        run_all = side_by_side.SideBySide(start, values)
    with heartbeat.of_hosts(workdir), gone.missed():
        runner.run_stages(table, context, chosen, force, run_all=run_all)
    lines = [_not_used(context, name, *how) for name, how in _NOT_USED.items() if name in chosen]
    return "; ".join(filter(None, lines)) or None


# By stage: the fact that counts them, and the file that names them.
_NOT_USED = {
    "patches": ("quarantined", artifacts.QUARANTINE),
    "features": ("failed", "results.json"),
}


def _not_used(context: stage.Context, name: str, fact: str, file: str) -> str | None:
    """A line about files that a stage could not use, if there were any."""
    folder = context.folder(name)
    count = atomic.read_json(folder / "done.json")["facts"].get(fact, 0)
    return f"{count} of the files could not be used: {folder / file}" if count else None
