"""Warnings about files that are opened several times: each is said once."""

import functools
import logging

_LOG = logging.getLogger(__name__)

_LEFT_TO_PARENT: list[str] = []
"""Of a worker process, in the order in which they came."""


# The cache is the memory of what was said.
@functools.lru_cache(2**14)
def once(message: str) -> None:
    """Warn the first time that this message comes."""
    _LOG.warning("%s", message)


def leave_to_parent() -> None:
    """From here on this process keeps its messages for `taken`: every worker opens the same files
    as the process that started it, which alone can say each message once."""
    _LOG.propagate = False
    _LOG.addHandler(_Keep())


def taken() -> list[str]:
    """The messages since the last call."""
    messages, _LEFT_TO_PARENT[:] = list(_LEFT_TO_PARENT), []
    return messages


class _Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _LEFT_TO_PARENT.append(record.getMessage())
