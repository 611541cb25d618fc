"""Warnings about files that are opened again and again."""

import functools
import logging

_LOG = logging.getLogger(__name__)


@functools.lru_cache(2**14)
def once(message: str) -> None:
    """Warn of it the first time."""
    _LOG.warning("%s", message)
