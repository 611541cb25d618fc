"""The other end of `processes`: run the stages that another process names, and report on each."""

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import jax

from ssldiff_jax.core import schema
from ssldiff_jax.runs import environment, launch, one_stage, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import forced_command
from ssldiff_jax.train import hosts
from ssldiff_jax.train import mesh as mesh_lib


def serve(
    table: stage.Table,
    order: Mapping[str, Any],
    names: IO[bytes],
    reports: IO[str],
    begin: Callable[[str], None],
) -> None:
    """Run stages as long as they come; `begin` is called with each.

    Args:
        order: a `processes.Order` as a mapping.
        names: of the stages, a line each, an empty one at the end; where it ends before, the
            process that sent them has died, and this one ends too.
        reports: gets a line of JSON for each stage: its folder as `ended`, or why it was `stopped`
            or has `failed`; and one as soon as it is known on how many cores this process computes.
    """
    if changed := _changed(order["versions"], environment.versions()):
        _say(reports, {"failed": changed})
        return
    config = schema.build(run_config.RunConfig, order["values"])
    context = stage.Context(config, order["workdir"], mesh_lib.make_mesh(config.mesh))
    command = forced_command.Command(**order["command"])
    stages = one_stage.StageRunner(table, context, order["force"], command)
    jax.block_until_ready(jax.numpy.zeros(()))  # has the device, and with it its threads
    _say(reports, {"ready": True})
    for name in _names(names):
        begin(name)
        _say(reports, _outcome(stages, name))


def _changed(began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """A line where the code is another than that which the command began with: one run is not made
    by two."""
    differ = [f"{name}={now[name]} after {began[name]}" for name in now if now[name] != began[name]]
    if not differ:
        return ""
    return (
        "error: the code must stay as it is while a command runs, got "
        f"{', '.join(differ)}; the same command resumes with it"
    )


def _outcome(stages: one_stage.StageRunner, name: str) -> dict[str, Any]:
    try:
        folder = stages.run(name)
    except hosts.StoppedError as error:
        return {"stopped": str(error)}
    except (*launch.REFUSALS, *launch.USER_ERRORS) as error:
        return {"failed": launch.message(error, stages.context.workdir)}
    return {"ended": None if folder is None else str(folder)}


def _say(reports: IO[str], report: Mapping[str, Any]) -> None:
    reports.write(f"{json.dumps(report)}\n")
    reports.flush()


def _names(lines: IO[bytes]) -> Iterator[str]:
    waiting: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in lines:
            waiting.put(line.decode().strip())
            if not line.strip():
                return
        os._exit(1)  # who sends them has died: nobody else would end this process

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    while name := waiting.get():
        yield name
    listener.join()


class StageOfLines(logging.Filter):
    """Lets each line begin with the stage that it is of, from `begin` on."""

    def __init__(self):
        super().__init__()
        self._stage = ""

    def begin(self, name: str) -> None:
        """A stage begins."""
        self._stage = name

    def filter(self, record: logging.LogRecord) -> bool:
        """Lines that begin so already stay as they are."""
        line = record.getMessage()
        if self._stage and not line.removeprefix("stage ").startswith(self._stage):
            record.msg, record.args = f"{self._stage}: {line}", ()
        return True
