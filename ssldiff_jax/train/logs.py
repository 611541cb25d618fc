"""What a run leaves to read: JSON lines always, TensorBoard files beside, progress on screen."""

import collections
import contextlib
import json
import logging
import pathlib
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.core import durations
from ssldiff_jax.train import boards as boards_lib

_LOG = logging.getLogger(__name__)

_WINDOW = 600.0  # seconds that a rate is taken over


class MetricsWriter:
    """Scalars to `metrics.jsonl`, to TensorBoard event files and to what `open_others` opens, and
    pictures to the last two, from the first host alone."""

    def __init__(
        self,
        folder: pathlib.Path,
        open_others: Callable[[], Sequence[boards_lib.Board]] = tuple,
    ):
        self._first = jax.process_index() == 0
        if self._first:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = _whole_lines(folder / "metrics.jsonl").open("a")
            self._boards = [boards_lib.TensorBoard(folder / "tensorboard"), *open_others()]

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        pictures: Mapping[str, UInt8[np.ndarray, "H W 3"]] = types.MappingProxyType({}),
    ) -> None:
        """One line, one point a scalar, and pictures."""
        if not self._first:
            return
        self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._lines.flush()
        for board in self._boards:
            board.write(step, scalars)
            for name, picture in pictures.items():
                board.show(step, name, picture)

    def close(self) -> None:
        """Flush all."""
        if self._first:
            with contextlib.ExitStack() as stack:
                for part in (*self._boards, self._lines):
                    stack.callback(part.close)


def _whole_lines(path: pathlib.Path) -> pathlib.Path:
    """A file of lines without the end of one that a full disk or a kill cut off."""
    if path.exists():
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])
    return path


class Profile:
    """A trace of some steps in `folder`; of none where `count` is 0."""

    def __init__(self, folder: pathlib.Path, first: int, count: int):
        self._folder, self._first, self._count = folder, first, count
        self._running = False

    def at(self, step: int) -> None:
        """To be called with every step before it runs."""
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
    """A bar on a terminal, a log line every `interval` seconds otherwise; rate and time left.

    Both are of the last ten minutes, and of this process alone: the first update, before which
    programs are compiled, only starts the clock.
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        start: int = 0,
        interval: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        import tqdm

        self._name, self._total, self._done = name, total, start
        self._interval, self._clock = interval, clock
        self._last, self._note = clock(), ""
        # (time, done) of the last ten minutes, at most one a second.
        self._samples: collections.deque[tuple[float, int]] = collections.deque()
        self._bar = None
        if sys.stderr.isatty() and jax.process_index() == 0:
            self._bar = tqdm.tqdm(
                total=total, initial=start, desc=name, dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
            )  # fmt: skip

    def update(self, count: int = 1, note: str = "") -> None:
        """Advance by `count`; `note` is shown beside the rate."""
        self._done += count
        self._note = note or self._note
        now = self._clock()
        self._sample(now, count)
        if self._bar is not None:
            self._bar.set_postfix_str(self._progress_text(now), refresh=False)
            self._bar.update(count)
            return
        if now - self._last < self._interval and self._done < self._total:
            return
        self._last = now
        _LOG.info("%s %d/%d  %s", self._name, self._done, self._total, self._progress_text(now))

    def _sample(self, now: float, count: int) -> None:
        samples = self._samples
        if count and (not samples or now - samples[-1][0] >= 1):
            samples.append((now, self._done))
        while len(samples) > 1 and samples[1][0] <= now - _WINDOW:
            samples.popleft()

    def _progress_text(self, now: float) -> str:
        """Rate and time left, once they are known, and the note."""
        parts = [self._note] if self._note else []
        began, before = self._samples[0] if self._samples else (now, self._done)
        if now > began and self._done > before:
            rate = (self._done - before) / (now - began)
            left = durations.clock(max(self._total - self._done, 0) / rate)
            parts = [f"{rate:.3g}/s", f"{left} left", *parts]
        return "  ".join(parts)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
