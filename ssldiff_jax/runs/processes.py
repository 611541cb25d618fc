"""Processes that run stages for another one, which starts them, and hears what became of each."""

import contextlib
import dataclasses
import json
import pathlib
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from ssldiff_jax.core import machine
from ssldiff_jax.runs.workdir import forced_command


@dataclasses.dataclass(frozen=True)
class Order:
    """What a process is sent first: the versions that a command began with, its config, its work
    directory, and which stages it makes again."""

    versions: Mapping[str, str]
    values: Mapping[str, Any]
    workdir: pathlib.Path
    force: frozenset[str]
    command: forced_command.Command


class Pool:
    """Processes that each run one stage at a time.

    One that ended a stage takes the next: starting one costs seconds of importing and tracing.
    """

    def __init__(self, start: Sequence[str], order: Order):
        self._start, self._order = start, order
        self._processes: list[_Process] = []
        self._reports: queue.Queue[tuple[_Process, dict[str, Any] | None]] = queue.Queue()
        self.is_stopped = False
        self.failures: list[str] = []
        self.stopped: list[str] = []

    @property
    def busy(self) -> list[str]:
        """The stages that run."""
        return [one.stage for one in self._processes if one.stage]

    def start(self, name: str) -> None:
        """Run a stage, in a process that is idle or a new one."""
        idle = [one for one in self._processes if not one.stage and not one.is_leaving]
        process = idle[0] if idle else _Process(self._start, self._order, self._reports)
        if not idle:
            self._processes.append(process)
        process.begin(name)
        if self.is_stopped:  # meanwhile, by a signal
            process.stop()

    def wait(self, seconds: float) -> dict[str, pathlib.Path | None]:
        """Wait for a stage to end; returns its folder by its name (None after a dry run), or
        nothing where none ended well, or none at all."""
        try:
            process, report = self._reports.get(timeout=seconds)
        except queue.Empty:
            return {}
        if report is None:
            self._processes.remove(process)
            self._note_end(process)
            return {}
        if "ready" in report:
            process.is_ready = True
            return {}
        name, process.stage = process.stage, ""
        if "ended" in report:
            return {name: report["ended"] and pathlib.Path(report["ended"])}
        if "stopped" in report:
            self._note_stop(report["stopped"])
        else:
            self._fail(report["failed"])
        return {}

    def stop(self) -> None:
        """Ask all that run to save what they can, and end. To be called in any thread."""
        self.is_stopped = True
        for one in list(self._processes):
            one.stop()

    def end_idle(self) -> None:
        """Let those go that run nothing: they hold memory."""
        for one in self._processes:
            if not one.stage and not one.is_leaving:
                one.leave()

    def divide_cores(self) -> None:
        """Let each of those that run have its part of the cores, and a lone one all."""
        running = [one for one in self._processes if one.stage]
        for one, cores in zip(running, machine.parts(len(running)), strict=True):
            one.run_on(cores)

    def memory_mb(self) -> list[float]:
        """What each of those that run holds now, MB."""
        return [one.memory_mb() for one in self._processes if one.stage]

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Leaves no process behind."""
        try:
            yield
        except BaseException:
            self.stop()
            raise
        finally:
            self.end_idle()
            for one in self._processes:
                one.join()

    def _note_end(self, process: "_Process") -> None:
        """Of a process that ended and said nothing more."""
        status, name = process.join(), process.stage
        if not name:
            return
        if status == -signal.SIGTERM:
            self._note_stop(f"{name} was stopped; the same command resumes")
        elif status == -signal.SIGKILL:
            self._fail(
                f"error: stage {name!r} must end by itself, got SIGKILL, as the system sends it "
                "where memory is full; --config.runtime.side_by_side=never runs one stage at a time"
            )
        else:
            self._fail(
                f"error: stage {name!r} must end by itself, got exit status {status} of its "
                "process, whose lines say why"
            )

    def _note_stop(self, line: str) -> None:
        # A signal may have come to one alone: the command stops as a whole.
        self.stopped.append(line)
        self.stop()

    def _fail(self, lines: str) -> None:
        self.failures.append(lines)
        self.stop()


class _Process:
    """One process: what it runs, and threads that hand on what it says."""

    def __init__(self, start: Sequence[str], order: Order, reports: queue.Queue):
        self.stage, self.is_ready, self.is_leaving = "", False, False
        self._is_stopped = False
        self._cores: tuple[int, ...] = ()
        self._popen = _popen(start)
        self._threads = [
            threading.Thread(target=self._hand_on_reports, args=(reports,), daemon=True),
            threading.Thread(target=_hand_on_lines, args=(self._popen.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._send(pickle.dumps(dataclasses.asdict(order)))

    def begin(self, name: str) -> None:
        self.stage = name
        self._send(f"{name}\n".encode())

    def leave(self) -> None:
        self.is_leaving = True
        self._send(b"\n")

    def stop(self) -> None:
        # Once: what it saves after the first one would be ended by a second.
        if not self._is_stopped:
            self._is_stopped = True
            with contextlib.suppress(ProcessLookupError):
                self._popen.send_signal(signal.SIGTERM)

    def join(self) -> int:
        """Its exit status, once it has ended and all that it said is handed on."""
        status = self._popen.wait()
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(BrokenPipeError):  # of a name that it never read
            self._popen.stdin.close()
        return status

    def run_on(self, cores: tuple[int, ...]) -> None:
        # Until it is ready XLA counts the cores, and makes a thread for each; what a sum is rounded
        # to depends on how many there are. So each process counts all, as a lone one does, and its
        # threads share the cores that it is given then.
        if self.is_ready and cores != self._cores:
            machine.move(self._popen.pid, cores)
            self._cores = cores

    def memory_mb(self) -> float:
        # Not at the top: a machine that only computes need not have it.
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._popen.pid).memory_info().rss / 2**20
        return 0.0

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its reports say so
            self._popen.stdin.write(data)
            self._popen.stdin.flush()

    def _hand_on_reports(self, reports: queue.Queue) -> None:
        for line in self._popen.stdout:
            reports.put((self, json.loads(line)))
        reports.put((self, None))


def _popen(start: Sequence[str]) -> subprocess.Popen:
    """Ctrl-C, which a terminal sends to all, is for the parent alone to hear; but what suspends
    this process suspends them."""
    pipe = subprocess.PIPE
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(start, stdin=pipe, stdout=pipe, stderr=pipe)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_on_lines(lines: IO[bytes]) -> None:
    for line in lines:
        sys.stderr.write(line.decode(errors="replace"))
        sys.stderr.flush()
