"""A host of the run that is gone: what others say of it, and how they end."""

import contextlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator

import jax

_GONE = re.compile(
    r"Gloo \w+ failed|Connection (closed|reset) by peer|[Cc]oordination service|ncclRemoteError"
)
_LEAVE_S = 10.0
"""Seconds in which hosts that fail for one reason have all said so."""


class GoneError(RuntimeError):
    """Another host ended without a word."""


@contextlib.contextmanager
def missed() -> Iterator[None]:
    """Turn what a library raises because another host is gone into one line.

    Raises GoneError for it, and anything else as it is.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or not _GONE.search(str(error)):
            raise
        raise GoneError(
            "another process of this run is gone (killed, out of memory, or its machine is down): "
            "its log or the scheduler's may say why; the same command resumes"
        ) from error


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Let this process end when it fails. jax would wait for the others as it exits: for one that
    is gone, until it is missed, and for one that waits for this process, five minutes."""
    try:
        yield
    except BaseException as error:
        is_failure = not isinstance(error, SystemExit) or isinstance(error.code, str)
        if jax.process_count() > 1 and is_failure:
            _leave(error)
        raise


def _leave(error: BaseException) -> None:
    thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    thread.start()
    thread.join(_LEAVE_S)
    if thread.is_alive():
        # As Python does, which is ended before it would.
        text = error.code if isinstance(error, SystemExit) else traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        os._exit(1)
