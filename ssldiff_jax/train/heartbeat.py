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
from ssldiff_jax.train import gone, hosts

_LOG = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two signs
_LONGEST = 300  # characters of an error that others quote
SILENT = 40.0  # seconds without a sign; shared folders show what others wrote seconds later


class Heartbeat:
    """Signs of the host `index` of `count` in a folder, and what those of the others say.

    `silent` are the seconds without a sign after which a host is named. Clocks of hosts differ:
    each measures by its own how long it has seen nothing new of another. Seconds in which it could
    not look, because it was stopped or the folder did not answer, are nobody's silence: what is
    slow then may be the storage of all. Signs of another `run` in the folder are none.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        index: int,
        count: int,
        *,
        silent: float = SILENT,
        run: int = 0,
        now: Callable[[], float] = time.monotonic,
    ):
        self._folder, self._index, self._silent, self._now = folder, index, silent, now
        self._beats = 0
        # Why the own sign was refused, and whether that was said.
        self._unwritten, self._said = "", False
        # Of each other host: its last sign, and when that was new.
        self._seen: dict[int, tuple[Any, float]] = {
            host: (None, now()) for host in range(count) if host != index
        }
        self._named: set[int] = set()
        self._run, self._looked = run, now()

    def beat(self, place: str, *, ended: bool = False, error: str = "") -> None:
        """Give a sign: alive, and at `place`; the last one says that it has ended, and for what
        error."""
        self._beats += 1
        sign = {"run": self._run, "beat": self._beats, "place": place, "ended": ended}
        sign |= {"error": error} if error else {}
        try:
            atomic.write_json(self._path(self._index), sign)
            self._unwritten = ""
        except OSError as refused:  # a full disk is what the work fails for
            self._unwritten = self._unwritten or str(refused)

    def lines(self, place: str) -> list[str]:
        """A line for each host that has become silent, is back, or failed, as seen from `place`,
        and one where this host could not look for long, or give its own sign."""
        # Once: what is read below may take long, and then nobody was silent for it.
        now = self._now()
        own = self._own_line(now)
        others = [line for host in self._seen if (line := self._line(host, place, now))]
        return [f"{place}: {line}" for line in own] + others

    def _own_line(self, now: float) -> list[str]:
        passed, self._looked = now - self._looked, now
        blind = passed if self._unwritten else max(passed - self._silent / 4, 0.0)
        self._seen = {host: (sign, since + blind) for host, (sign, since) in self._seen.items()}
        said, self._said = self._said, bool(self._unwritten)
        if self._unwritten and not said:
            return [
                f"{self._unwritten}; other hosts may miss this one, which misses none meanwhile"
            ]
        if self._unwritten or blind < self._silent / 2:
            return []
        return [
            f"{self._folder} did not answer, or this process stood still, for {passed:.0f} s; "
            "other hosts may have missed this one, which misses none for that time"
        ]

    def _line(self, host: int, place: str, now: float) -> str | None:
        sign, since = self._read(host), self._seen[host][1]
        if sign != self._seen[host][0]:
            self._seen[host] = (sign, now)
            if sign.get("error"):
                return f"{place}: host {host} failed; its log has more: {sign['error']}"
            if host in self._named:
                self._named.remove(host)
                return f"host {host} is back"
            return None
        quiet = now - since
        if quiet < self._silent or host in self._named or (sign or {}).get("ended"):
            return None
        self._named.add(host)
        last = f", last seen {sign['place']}" if sign else ""
        return f"{place}: host {host} has shown no sign of life for {quiet:.0f} s{last}"

    def _read(self, host: int) -> Any:
        with contextlib.suppress(OSError, ValueError):
            sign = atomic.read_json(self._path(host))
            if sign.get("run") == self._run:
                return sign
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
    run, index = hosts.same_number(), jax.process_index()
    heart = Heartbeat(workdir / ".alive", index, count, silent=silent, run=run)
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
    failure = ""
    try:
        yield
    except Exception as error:
        # Of what others failed for, they say so themselves.
        if not isinstance(error, hosts.ElsewhereError | gone.GoneError | hosts.StoppedError):
            failure = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise
    finally:
        ended.set()
        thread.join()
        heart.beat(hosts.place(), ended=True, error=failure)
