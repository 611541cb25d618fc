"""The files that stay open between reads: the last used ones of all stores together, no more than
a process may have."""

import collections
import contextlib
import itertools
import resource
import threading
from collections.abc import Callable, Hashable
from typing import Any

MOST = 2048
"""Files of 8192 records: 130 MB of memory."""


def limit() -> int:
    """How many files this process may have open, raised as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = 4 * MOST if hard == resource.RLIM_INFINITY else min(hard, 4 * MOST)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that it hides
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return target if soft == resource.RLIM_INFINITY else soft


class OpenFiles:
    """What was opened, by its key; the least recently used is let go first. Threads may share it:
    what one of them still reads is closed when it is done."""

    def __init__(self, most: int | None = None):
        """`most` files; half of what the process may have where that is less, or by default."""
        self._most = most
        # Entered again where the collector runs `forget` of a store while this thread is in here.
        self._lock = threading.RLock()
        self._open: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def most(self) -> int:
        """Files that stay open. Half of the limit is left to whatever else the process opens."""
        return max(1, min(self._most or MOST, limit() // 2))

    def get(self, key: Hashable, open_file: Callable[[], Any]) -> Any:
        """What is open under a key, or what `open_file` opens."""
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
            self._let_go(self.most - 1)
        # Outside the lock: a file system that answers late holds up no other thread.
        opened = open_file()
        with self._lock:
            # Another thread may have opened it meanwhile: the first stays, ours closes with its
            # last reader.
            return self._open.setdefault(key, opened)

    def forget(self, owner: Hashable) -> None:
        """Let go of all whose key is (owner, …)."""
        with self._lock:
            for key in list(self._open):
                if key[0] == owner:
                    self._open.pop(key, None)

    def let_go(self) -> None:
        """Let go of the older half."""
        with self._lock:
            self._let_go(len(self._open) // 2)

    def _let_go(self, at_most: int) -> None:
        while len(self._open) > at_most:
            self._open.pop(next(iter(self._open)), None)


SHARED = OpenFiles()
"""That of this process."""

_OWNERS = itertools.count()


def new_owner() -> int:
    """A number of its own for every owner of open files."""
    return next(_OWNERS)
