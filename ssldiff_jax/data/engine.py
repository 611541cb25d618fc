"""Do one thing to each of many, in processes here or by Beam on any cluster."""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import process
from multiprocessing import resource_tracker
from typing import Literal, TypeVar

from ssldiff_jax.core import machine
from ssldiff_jax.slides import warn

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """`processes` on this machine (0: as many as cores), or Beam with its own options, such as
    `--runner=DataflowRunner`. Results do not depend on it."""

    kind: Literal["processes", "beam"] = dataclasses.field(metadata={"digest": False})
    processes: int = dataclasses.field(metadata={"digest": False})
    beam: tuple[str, ...] = dataclasses.field(metadata={"digest": False})

    def __post_init__(self):
        if self.processes < 0:
            raise ValueError(f"processes must be 0 or more, got processes={self.processes}")


class EngineError(ValueError):
    """An engine that is not installed, or failed as a whole."""


def for_each(
    work: Callable[[T], None],
    tasks: Sequence[T],
    config: EngineConfig,
    *,
    died: Callable[[T], None],
) -> Iterator[None]:
    """Yields after each task; `died` gets those whose process ended without an error.

    `work` and the tasks are pickled, so `work` must be a function of a module.
    Raises EngineError where Beam is missing, and what the work raises.
    """
    if config.kind == "beam":
        return _by_beam(work, tasks, config)
    processes = min(config.processes or machine.cores(), len(tasks))
    if processes <= 1:
        return (work(task) for task in tasks)
    return _by_processes(work, tasks, processes, died)


def _by_processes(
    work: Callable[[T], None], tasks: Sequence[T], processes: int, died: Callable[[T], None]
) -> Iterator[None]:
    waiting = collections.deque(tasks)
    while waiting:
        # Which of those at work ended its process shows when each runs alone.
        for task in (yield from _until_broken(work, waiting, processes)):
            with _pool(1) as pool:
                try:
                    _say(_submit(pool, work, task).result())
                except process.BrokenProcessPool:
                    died(task)
            yield


def _until_broken(
    work: Callable[[T], None], waiting: collections.deque[T], processes: int
) -> Generator[None, None, list[T]]:
    """Take from those waiting until all are done; returns what was at work when a process died."""
    at_work: dict[concurrent.futures.Future, T] = {}
    with _pool(processes) as pool:
        try:
            while waiting or at_work:
                # No more than are at work: those that a dying process takes along are done again
                # one by one.
                while waiting and len(at_work) < processes:
                    future = _submit(pool, work, waiting[0])
                    at_work[future] = waiting.popleft()
                done, _ = concurrent.futures.wait(
                    at_work, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    _say(future.result())
                    del at_work[future]
                    yield
        except process.BrokenProcessPool:
            return list(at_work.values())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return []


def _pool(processes: int) -> concurrent.futures.ProcessPoolExecutor:
    # Not forked: threads of jax, libvips and OpenSlide would hold locks in the child for ever.
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),)
    )


def _submit(
    pool: concurrent.futures.ProcessPoolExecutor, work: Callable[[T], None], task: T
) -> concurrent.futures.Future:
    """Processes that this starts never hear Ctrl-C, which a terminal sends to them too: their
    parent hears it, and they end with it."""
    # Started in between, it would let the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_work_and_messages, work, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work_and_messages(work: Callable[[T], None], task: T) -> list[str]:
    """Do the work in a worker process; returns the warnings about files that it left."""
    work(task)
    return warn.taken()


def _say(messages: list[str]) -> None:
    for message in messages:
        warn.once(message)


def _begin_worker(parent: int) -> None:
    """A worker would wait for work for ever after its parent was killed."""
    warn.leave_to_parent()

    def watch() -> None:
        # An orphan is given another parent.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _by_beam(work: Callable[[T], None], tasks: Sequence[T], config: EngineConfig) -> Iterator[None]:
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise EngineError(
            f"config.data.engine.kind=beam expects apache-beam (pip install apache-beam), got: "
            f"{error}"
        ) from error
    try:
        options = pipeline_options.PipelineOptions(list(config.beam))
        with apache_beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create(list(tasks))
                # Else Beam fuses both steps, and one worker does all.
                | apache_beam.Reshuffle()
                | apache_beam.Map(work)
            )
    except Exception as error:  # every runner has its own
        raise EngineError(f"Beam failed: {' '.join(str(error).split()):.500}") from error
    yield from (None for _ in tasks)
