"""What a run leaves to read: JSON lines always, TensorBoard files beside, progress on screen."""

import json
import logging
import pathlib
import sys
import time
from collections.abc import Mapping

import jax
import tensorboardX
import tqdm

_LOG = logging.getLogger(__name__)


class MetricsWriter:
    """Scalars to `metrics.jsonl` and to TensorBoard event files, from the first host alone."""

    def __init__(self, folder: pathlib.Path):
        self._first = jax.process_index() == 0
        if self._first:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / "metrics.jsonl").open("a")
            self._board = tensorboardX.SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line, one point a scalar."""
        if not self._first:
            return
        self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush both."""
        if self._first:
            self._lines.close()
            self._board.close()


class Profile:
    """A trace of some steps in `folder`; of none where `count` is 0."""

    def __init__(self, folder: pathlib.Path, first: int, count: int):
        self._folder, self._first, self._count = folder, first, count
        self._running = False

    def at(self, step: int) -> None:
        """To be told of every step before it."""
        if self._count and step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step == self._first + self._count:
            self.close()

    def close(self) -> None:
        """End the trace."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


class Progress:
    """A bar on a terminal, a log line every `interval` seconds otherwise; rate and time left."""

    def __init__(self, name: str, total: int, *, start: int = 0, interval: float = 20.0):
        self._name, self._total, self._start, self._interval = name, total, start, interval
        self._done, self._began, self._last = start, time.monotonic(), time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and jax.process_index() == 0:
            self._bar = tqdm.tqdm(total=total, initial=start, desc=name, dynamic_ncols=True)

    def update(self, count: int = 1, note: str = "") -> None:
        """Advance by `count`; `note` is shown beside the rate."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            if note:
                self._bar.set_postfix_str(note)
            return
        now = time.monotonic()
        if now - self._last < self._interval and self._done < self._total:
            return
        self._last = now
        rate = (self._done - self._start) / max(now - self._began, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        _LOG.info(
            "%s %d/%d  %.3g/s  %s left  %s", self._name, self._done, self._total, rate,
            time.strftime("%H:%M:%S", time.gmtime(left)), note,
        )  # fmt: skip

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
