"""Run the stages of a command side by side: each as soon as what it reads is done, in processes.

A training step of a small model does not keep many cores busy, and between steps one core works:
two stages at once, with half of the cores each, end sooner than one after the other. Each process
has jax to itself; this one starts them, divides the cores, and hears signals for all.
"""

import contextlib
import dataclasses
import logging
import pathlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from ssldiff_jax.core import interrupt, machine
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import environment, one_stage, processes, schedule
from ssldiff_jax.runs.config import runtime as runtime_config
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)

_LEAST_MB = 1500.0
"""Memory that a stage is thought to need where none has ended that could be measured."""
_POLL = 1.0  # seconds after which free memory is looked at again


class FailedError(RuntimeError):
    """Stages failed: the lines that their processes ended with."""


def is_possible(runtime: runtime_config.RuntimeConfig, mesh: Mesh) -> bool:
    """Whether processes can share what this one has.

    An accelerator is one process's; of several hosts each stage takes all; collectives between
    devices that are made of one CPU wait for one another in threads, which need all its cores.
    """
    alone = jax.process_count() == 1 and jax.device_count() == mesh.size == 1
    on_cpu = jax.default_backend() == "cpu"
    return runtime.side_by_side == "auto" and alone and on_cpu and at_once(machine.cores()) > 1


def at_once(cores: int) -> int:
    """How many stages share so many cores: two, or more where each has two."""
    return max(min(cores, 2), cores // 2)


def has_room(free: float, running: Sequence[float], peak: float) -> bool:
    """Whether memory that is free holds one more process, where each, of those running too, grows
    to `peak`."""
    return free >= peak + sum(max(peak - used, 0.0) for used in running)


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """Runs the stages of a command with the config `values` in processes, each of which the command
    `start` starts."""

    start: Sequence[str]
    values: Mapping[str, Any]

    def __call__(
        self, stages: one_stage.StageRunner, chosen: Sequence[str]
    ) -> dict[str, pathlib.Path | None]:
        """Run the chosen stages; returns their folders.

        Raises StoppedError after Ctrl-C or SIGTERM, FailedError where a stage failed: the others
        are stopped as by a signal, and resume.
        """
        plan = schedule.Schedule.of(
            stages.table, stages.context.folders, chosen, stages.context.config
        )
        work = [name for name in chosen if not stages.is_settled(name)]
        if not plan.branches(work):
            return one_stage.one_after_another(stages, chosen)
        _LOG.info(
            "up to %d stages run at the same time, each in a process of its own",
            at_once(machine.cores()),
        )
        workdir = stages.context.workdir
        order = processes.Order(
            environment.versions(), self.values, workdir, stages.force, stages.command
        )
        pool = processes.Pool(self.start, order)
        with pool.closing(), _stopping(pool) as came:
            made = _run(plan, stages, pool, came)
        for line in pool.stopped:
            _LOG.info("%s", line)
        if pool.failures:
            raise FailedError("\n".join(pool.failures))
        if len(made) < len(chosen):
            raise hosts.StoppedError("stopped; the same command resumes")
        return {name: made[name] for name in chosen}


def _run(
    plan: schedule.Schedule,
    stages: one_stage.StageRunner,
    pool: processes.Pool,
    came: threading.Event,
) -> dict[str, pathlib.Path | None]:
    made: dict[str, pathlib.Path | None] = {}
    while pool.busy or len(made) < len(plan.before):
        is_ending = came.is_set() or pool.is_stopped
        if is_ending and not pool.busy:
            break
        ready = [] if is_ending else plan.ready(made, pool.busy)
        settled = [name for name in ready if stages.is_settled(name)]
        if settled:
            made[settled[0]] = stages.run(settled[0])
            continue
        for name in ready:
            if not pool.busy or _may_start(pool, stages):
                pool.start(name)
        pool.end_idle()
        pool.divide_cores()
        made |= pool.wait(_POLL)
    return made


def _may_start(pool: processes.Pool, stages: one_stage.StageRunner) -> bool:
    """Whether cores and memory are there for another stage."""
    # Not at the top: a machine that only computes need not have it.
    import psutil

    if len(pool.busy) >= at_once(machine.cores()):
        return False
    running = pool.memory_mb()
    peak = max(_LEAST_MB, *running, *_peaks(stages))
    return has_room(psutil.virtual_memory().available / 2**20, running, peak)


def _peaks(stages: one_stage.StageRunner) -> Iterator[float]:
    """Peak memory of the stages of the run that have ended, MB."""
    folders = stages.context.folders
    for name in stages.table:
        if folders.is_done(name):
            yield atomic.read_json(folders.of_stage(name) / "done.json").get("peak_rss_mb", 0.0)


@contextlib.contextmanager
def _stopping(pool: processes.Pool) -> Iterator[threading.Event]:
    """Whether Ctrl-C or SIGTERM came: what runs is stopped then, and saves what it can."""
    came = threading.Event()

    def stop(*_) -> None:
        came.set()
        pool.stop()

    with contextlib.ExitStack() as restore:
        restore.enter_context(interrupt.saving(stop))
        with contextlib.suppress(ValueError):  # not in the main thread: who runs it stops it
            before = signal.signal(signal.SIGTERM, stop)
            restore.callback(signal.signal, signal.SIGTERM, before)
        yield came
