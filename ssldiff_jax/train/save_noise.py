"""What Orbax, asyncio and tensorstore print of a save that failed, beside the error they raise: the
traceback of every thread and array, thousands of lines for a model."""

import functools
import logging
import sys


@functools.cache
def silence() -> None:
    """Drop it in this process; the error itself still reaches the caller that saves."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_told_once)
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not _is_late_write(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook


def _is_told_once(record: logging.LogRecord) -> bool:
    """Whether to log: not what Orbax hands to its caller, nor what became of its other writes."""
    is_its_error = bool(record.exc_info) and "orbax" in record.pathname
    return not (is_its_error or (record.name == "asyncio" and "orbax" in record.getMessage()))


def _is_late_write(error: BaseException | None) -> bool:
    """Whether a write of tensorstore ended after the one that failed had ended the event loop."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
