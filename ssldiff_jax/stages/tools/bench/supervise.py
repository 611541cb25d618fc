"""Runs the parts of the tool `bench` one after another, each in a process with a limit."""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import ssldiff_jax
from ssldiff_jax.stages.tools.bench import parts, process, results

_LOG = logging.getLogger(__name__)

_SETTLE = 2.0  # seconds, until a card has the memory back of a process that was killed
_LEAST = 20.0  # seconds that are worth starting a process for
_WEIGHTS: dict[str, results.Weights] = {
    "archive": "none",
    "input": "none",
    "evaluation": "random or the run's, as the name says",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds for each part and for all together, 0 for none."""

    each: float
    total: float

    def left(self, began: float) -> float:
        """Seconds for the next part, where the first one began at that monotonic time."""
        rest = began + self.total - time.monotonic() if self.total else float("inf")
        return min(self.each or float("inf"), rest)


def run(orders: list[parts.Order], limits: Limits, measured: results.Results) -> None:
    """Measure what is not among `measured` yet. What came to its limit is tried once more while
    there is time: kernels that were tried and programs that were compiled are kept."""
    began = time.monotonic()
    again: list[parts.Order] = []
    for order in orders:
        if not measured.is_done(order.part.name) and _run(order, limits, began, measured):
            again.append(order)
    for order in again if limits.total else []:
        if limits.left(began) >= _LEAST:
            _run(order, limits, began, measured)


def _run(order: parts.Order, limits: Limits, began: float, measured: results.Results) -> bool:
    """Measure a part; whether it came to its limit."""
    name, limit = order.part.name, limits.left(began)
    if limit < _LEAST and limits.total:
        _LOG.info("%s is left out: the time of config.bench.total_s is over", name)
        row = results.Row.of((f"{name}/{results.PROCESS}", [0.0], "s"), hardware="none",
                             weights="none")  # fmt: skip
        measured.add(dataclasses.replace(row, failed="left out: config.bench.total_s was over"))
        return False
    _LOG.info("%s begins", name)
    started, hardware, failed = time.monotonic(), "not known: it ended too early", ""
    weights = _WEIGHTS.get(order.part.kind, "random")
    child = _Child(order, limit)
    for message in child.messages():
        hardware = message.get("hardware", hardware)
        failed = message.get("failed", failed)
        if "figure" in message:
            row = results.Row.of(message["figure"], hardware=hardware, weights=weights)
            measured.add(row)
            _LOG.info("%s: %.4g %s (spread %.2g, %d times)", row.name, row.value, row.unit,
                      row.spread, row.repetitions)  # fmt: skip
    figure = (f"{name}/{results.PROCESS}", [time.monotonic() - started], "s")
    row = results.Row.of(figure, hardware=hardware, weights=weights)
    failed = failed or child.failure()
    measured.add(dataclasses.replace(row, failed=failed))
    if failed:
        _LOG.warning("%s was not measured whole: %s", name, failed)
    return child.was_ended


class _Child:
    """A process that measures a part; its stderr is added to `log.txt`."""

    def __init__(self, order: parts.Order, limit: float):
        self._limit, self.was_ended = limit, False
        self._log_path = order.folder / "log.txt"
        with self._log_path.open("a") as log:
            log.write(f"== {order.part.name}\n")
            log.flush()
            root = str(pathlib.Path(ssldiff_jax.__file__).parents[1])
            paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
            self._process = subprocess.Popen(
                (*process.COMMAND, order.part.name), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )  # fmt: skip
        # One that is gone already says so by its status.
        with contextlib.suppress(BrokenPipeError):
            # Left open: the process ends when it is closed, whatever ends this one.
            pickle.dump(order, self._process.stdin)
            self._process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends or is ended at its limit."""
        timer = threading.Timer(min(self._limit, threading.TIMEOUT_MAX), self._end)
        timer.start()
        try:
            for line in self._process.stdout:
                yield json.loads(line)
            self._process.wait()
        finally:
            timer.cancel()
            self._kill()
        if self.was_ended:
            time.sleep(_SETTLE)

    def failure(self) -> str:
        """Why it ended, "" where all went well."""
        status = self._process.returncode
        if self.was_ended:
            return f"it had not ended after {self._limit:.0f} s (config.bench.limit_s, total_s)"
        if status == -signal.SIGKILL:
            return "it was killed, as the system does where the machine's memory is full"
        return f"it ended with status {status}, see {self._log_path.name}" if status else ""

    def _end(self) -> None:
        self.was_ended = True
        self._kill()

    def _kill(self) -> None:
        """It and what it started; nothing else is in its session."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
