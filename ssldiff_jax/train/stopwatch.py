"""What work took, over all processes that did it."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable

from ssldiff_jax.formats import atomic

_EVERY = 10.0  # seconds: what a process that is killed loses at the most


class Stopwatch:
    """Runs inside `with`, from what the processes before left in `path`, and writes itself down
    there while it runs.

    All work counts, also what a process did after the last checkpoint and the next one did again.
    `peak` is read as time passes; the largest value of any process is kept. None for `path` counts
    this process alone and writes nothing.
    """

    def __init__(
        self,
        path: pathlib.Path | None,
        *,
        now: Callable[[], float] = time.monotonic,
        peak: Callable[[], float] = lambda: 0.0,
    ):
        self._path, self._now, self._peak_now = path, now, peak
        left = atomic.read_json(path) if path is not None and path.exists() else {}
        self._before, self._peak = left.get("seconds", 0.0), left.get("peak", 0.0)
        self._began: float | None = None
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None

    @property
    def seconds(self) -> float:
        """Until now, or until it was stopped."""
        return self._before + (self._now() - self._began if self._began is not None else 0.0)

    @property
    def peak(self) -> float:
        """The largest value until now, or until it was stopped."""
        return max(self._peak, self._peak_now() if self._began is not None else 0.0)

    def __enter__(self) -> "Stopwatch":
        self._began = self._now()
        if self._path is not None:
            self._writer = threading.Thread(target=self._write_on, daemon=True)
            self._writer.start()
        return self

    def __exit__(self, *_) -> None:
        self._before, self._peak = self.seconds, self.peak
        self._began = None
        self._ended.set()
        if self._writer is not None:
            self._writer.join()
            self.save()

    def save(self) -> None:
        """Write it down, where its folder is there and not full: it is not what work fails for."""
        with contextlib.suppress(OSError):
            if self._path is not None and self._path.parent.exists():
                left = {"seconds": round(self.seconds, 2), "peak": round(self.peak)}
                atomic.write_json(self._path, left)

    def _write_on(self) -> None:
        while not self._ended.wait(_EVERY):
            self.save()
