"""Signs of life of the hosts of a run: one that stalls is named while the others wait for it.

They lie in the work directory, which all hosts share, so that also the first one, through which
jax's own signs go, is missed by the others.
"""

import contextlib
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ssldiff_jax.formats import atomic
from ssldiff_jax.train import hosts

_LOG = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two signs
SILENT = 40.0  # seconds without a sign; shared folders show what others wrote seconds later


class Heartbeat:
    """Signs of the host `index` of `count` in a folder, and what those of the others say.

    `silent` are the seconds without a sign after which a host is named. Clocks of hosts differ:
    each measures by its own how long it has seen nothing new of another.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        index: int,
        count: int,
        *,
        silent: float = SILENT,
        now: Callable[[], float] = time.monotonic,
    ):
        self._folder, self._index, self._silent, self._now = folder, index, silent, now
        self._beats = 0
        # Of each other host: its last sign, and when that was new.
        self._seen: dict[int, tuple[Any, float]] = {
            host: (None, now()) for host in range(count) if host != index
        }
        self._named: set[int] = set()

    def beat(self, place: str, *, ended: bool = False) -> None:
        """Give a sign: alive, and at `place`; the last one says that it has ended."""
        self._beats += 1
        sign = {"beat": self._beats, "place": place, "ended": ended}
        with contextlib.suppress(OSError):  # a full disk is what the work fails for
            atomic.write_json(self._path(self._index), sign)

    def lines(self, place: str) -> list[str]:
        """A line for each host that has become silent, or is back, as seen from `place`."""
        return [line for host in self._seen if (line := self._line(host, place))]

    def _line(self, host: int, place: str) -> str | None:
        sign, since = self._read(host), self._seen[host][1]
        if sign != self._seen[host][0]:
            self._seen[host] = (sign, self._now())
            if host in self._named:
                self._named.remove(host)
                return f"host {host} is back"
            return None
        quiet = self._now() - since
        if quiet < self._silent or host in self._named or (sign or {}).get("ended"):
            return None
        self._named.add(host)
        last = f", last seen {sign['place']}" if sign else ""
        return f"{place}: host {host} has shown no sign of life for {quiet:.0f} s{last}"

    def _read(self, host: int) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return atomic.read_json(self._path(host))
        return self._seen[host][0]

    def _path(self, host: int) -> pathlib.Path:
        return self._folder / f"{host}.json"


@contextlib.contextmanager
def of_hosts(
    workdir: pathlib.Path, *, every: float = EVERY, silent: float = SILENT
) -> Iterator[None]:
    """Give signs, and say in the log which host gives none; nothing where this host is alone."""
    count = jax.process_count()
    if count == 1:
        yield
        return
    heart = Heartbeat(workdir / ".alive", jax.process_index(), count, silent=silent)
    ended = threading.Event()

    def go_on() -> None:
        while True:
            heart.beat(hosts.place())
            for line in heart.lines(hosts.place()):
                _LOG.warning("%s", line)
            if ended.wait(every):
                return

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        heart.beat(hosts.place(), ended=True)
