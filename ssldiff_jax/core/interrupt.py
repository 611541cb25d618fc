"""Ctrl-C (SIGINT) in a command: what can save itself does so first, everything else ends at once.

Python delivers a signal to the main thread alone, and only between two of its instructions: a
compiler that works for minutes would hear nothing. So a thread of its own reads the signals.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

STATUS = 128 + signal.SIGINT
"""How a process that Ctrl-C stopped ends, as shells have it."""

_SAVES: list[Callable[[], None]] = []
_CAME = threading.Event()
_OPEN: list[socket.socket] = []


def install() -> None:
    """Let Ctrl-C ask what can save itself to do so, and end what can't; a second one ends at once.

    To be called in the main thread. A process that was started with SIGINT ignored, as shells do
    in the background, stays deaf to it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    reader, writer = socket.socketpair()
    # As set_wakeup_fd demands: the signal's handler in C must never wait.
    writer.setblocking(False)
    _OPEN.extend((reader, writer))  # or they would be closed with their last reference
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # Only a signal with a handler of Python's is written to the descriptor; this one also takes the
    # place of KeyboardInterrupt.
    signal.signal(signal.SIGINT, lambda *_: None)
    # Said of pools of processes that end with their parent; what they leak is cleaned up.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    threading.Thread(target=_listen, args=(reader,), daemon=True).start()


def came() -> bool:
    """Whether Ctrl-C was pressed."""
    return _CAME.is_set()


def always(save: Callable[[], None]) -> None:
    """What Ctrl-C calls from here on, instead of ending the process."""
    # Before all others: the last of the list is called, which a block of `saving` adds.
    _SAVES.insert(0, save)


@contextlib.contextmanager
def saving(save: Callable[[], None]) -> Iterator[None]:
    """What Ctrl-C calls meanwhile, from another thread, instead of ending the process."""
    _SAVES.append(save)
    try:
        yield
    finally:
        _SAVES.remove(save)


def _listen(signals: socket.socket) -> None:
    while number := signals.recv(1):
        if number[0] != signal.SIGINT:
            continue
        if _CAME.is_set() or not _SAVES:
            _say("stopped by Ctrl-C: what was written is kept, and the same command resumes")
            # Not sys.exit: other threads compile or compute, and nobody waits for them.
            os._exit(STATUS)
        _CAME.set()
        _say("Ctrl-C: saving, then stopping; Ctrl-C again stops at once")
        _SAVES[-1]()


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\n{line}\n")
        sys.stderr.flush()
