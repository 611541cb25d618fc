"""How long a test waits for a process: until it hangs, however slow the machine is."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil

IDLE_S = 240
"""Without computing for so long, a process hangs."""
MOST_S = 3600
"""Nothing here takes so long anywhere: a process hangs that computes forever."""


class HangsError(AssertionError):
    """A process that was waited for in vain, and is killed."""


def communicate(
    process: subprocess.Popen, *, idle_s: float = IDLE_S, most_s: float = MOST_S
) -> tuple[Any, Any]:
    """What a process printed, once it ended by itself.

    Raises HangsError where it and its children computed nothing for `idle_s` seconds.
    """
    watch = _Watch(process, idle_s, most_s)
    while True:
        try:
            return process.communicate(timeout=min(2.0, idle_s))
        except subprocess.TimeoutExpired:
            watch.require_life()


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` with its output captured as text, for as long as the command computes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes | options) as process:
        out, errors = communicate(process)
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for what `process` will bring about.

    Raises HangsError where it hangs, AssertionError where it ended before.
    """
    watch = _Watch(process, IDLE_S, MOST_S)
    while not condition():
        ended = process.poll() is not None
        if ended and not condition():
            raise AssertionError(f"{process.args} ended with status {process.returncode} before")
        watch.require_life()
        time.sleep(0.02)


class _Watch:
    """Knows whether a process and its children have computed of late."""

    def __init__(self, process: subprocess.Popen, idle_s: float, most_s: float):
        self._process, self._idle_s = process, idle_s
        self._seconds, self._moved = 0.0, time.monotonic()
        self._end = self._moved + most_s

    def require_life(self) -> None:
        """Raises HangsError, the processes killed, where nothing moves."""
        now, seconds = time.monotonic(), self._cpu_seconds()
        # Less is life too: a child has ended, and its seconds with it.
        if abs(seconds - self._seconds) > 0.01:
            self._seconds, self._moved = seconds, now
        if now - self._moved > self._idle_s or now > self._end:
            for one in self._family():
                one.kill()
            _, errors = self._process.communicate()
            raise HangsError(f"{self._process.args} computed nothing of late; it said {errors}")

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self._process.pid)
            return [*parent.children(recursive=True), parent]
        except psutil.NoSuchProcess:
            return []

    def _cpu_seconds(self) -> float:
        total = 0.0
        for one in self._family():
            try:
                used = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += used.user + used.system
        return total
