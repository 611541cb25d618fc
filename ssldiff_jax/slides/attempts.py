"""Requests to what lies behind an address, made again where another try may succeed.

Clients of Google's and Amazon's buckets do so by themselves; that of plain HTTP does not.
"""

import http
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before the next try, and up to half as many more: processes that were turned away
together shall not come back together."""
SILENT_S = 60.0
"""Seconds without a byte after which a connection is given up. There is no limit to all of a
request: a large slide takes as long as it takes."""

_TRY_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))  # what passes, as servers use them
_ABSENT = frozenset((403, 404, 410))  # buckets that may not be listed forbid what is not there


class NoAnswerError(OSError):
    """What lies behind an address did not answer, however often it was asked."""


def until_answered(source: str, request: Callable[[], T]) -> T:
    """What a request returns; it is made again after each failure that may pass.

    Raises NoAnswerError after the last try, and any other error at once.
    """
    began, tries = time.monotonic(), len(WAITS) + 1
    for number, least in enumerate(WAITS, 2):
        try:
            return request()
        except Exception as error:  # every file system has its own
            reason = reason_to_try_again(error)
            if reason is None:
                raise
        wait = least * random.uniform(1.0, 1.5)
        _LOG.warning("%s: %s; try %d of %d in %.1f s", source, reason, number, tries, wait)
        time.sleep(wait)
    try:
        return request()
    except Exception as error:
        reason = reason_to_try_again(error)
        if reason is None:
            raise
        seconds = time.monotonic() - began
        raise NoAnswerError(f"{reason}, {tries} times in {seconds:.0f} s") from error


def reason_to_try_again(error: BaseException) -> str | None:
    """What went wrong, where it may pass by itself; None for all else."""
    for cause in _causes(error):
        if isinstance(cause, TimeoutError):
            return f"gave no answer for {SILENT_S:g} s"
        # Before statuses: one that aiohttp gives an answer of too few bytes is no server's.
        if isinstance(cause, (ConnectionError, *_of_client())):
            return f"broke the connection ({' '.join(str(cause).split()) or type(cause).__name__})"
    status = _status(error)
    return f"answered {_named(status)}" if status in _TRY_AGAIN else None


def is_absent(error: FileNotFoundError) -> bool:
    """Whether it means that nothing is there, and not that a server failed to say so."""
    status = _status(error)
    return status is None or status in _ABSENT


def http_options(source: str) -> dict[str, Any]:
    """What fsspec is given for an address, so that its client waits as `SILENT_S` says."""
    protocols = [name for name in ("http", "https") if f"{name}://" in source]
    try:
        import aiohttp
    except ImportError:  # said by fsspec, with what to install
        return {}
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S, sock_read=SILENT_S)
    users = {name: fsspec.config.conf.get(name, {}).get("client_kwargs", {}) for name in protocols}
    return {name: {"client_kwargs": {"timeout": timeout} | users[name]} for name in protocols}


def _named(status: int) -> str:
    known = status in iter(http.HTTPStatus)
    return f"{status} {http.HTTPStatus(status).phrase}" if known else str(status)


def _status(error: BaseException) -> int | None:
    """The status that a server answered with."""
    for cause in _causes(error):
        for name in ("status", "code"):
            if isinstance(status := getattr(cause, name, None), int):
                return status
    return None


def _of_client() -> tuple[type[Exception], ...]:
    # What was never imported has raised nothing.
    aiohttp = sys.modules.get("aiohttp")
    return (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) if aiohttp else ()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
