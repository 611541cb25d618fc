"""What the hosts of one run agree on: that they run the same, and when they stop."""

import json
import signal
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


class StoppedError(RuntimeError):
    """The run was asked to stop, saved itself, and goes on when it is started again."""


def require_same(what: str, facts: Any) -> None:
    """Refuse to start where hosts were given different things.

    Raises ValueError, on every host, naming those that differ from the first.
    """
    if jax.process_count() == 1:
        return
    told = np.uint32(zlib.crc32(json.dumps(facts, sort_keys=True, default=str).encode()))
    found = np.ravel(multihost_utils.process_allgather(told))
    others = [int(i) for i in np.flatnonzero(found != found[0])]
    if others:
        raise ValueError(
            f"all hosts must have the same {what}, got another than host 0's on host "
            f"{', '.join(map(str, others))} of {len(found)}"
        )


def is_first() -> bool:
    """Whether this host writes what is written once."""
    return jax.process_index() == 0


def meet(where: str) -> None:
    """Wait until every host is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def first_alone(what: str, work: Callable[[], T]) -> T | None:
    """Work that the first host does while the others wait; None on these.

    Raises what the work raises, and on the others RuntimeError.
    """
    if jax.process_count() == 1:
        return work()
    found = failure = None
    if is_first():
        try:
            found = work()
        except Exception as error:  # the others wait to hear of it
            failure = error
    failed = multihost_utils.broadcast_one_to_all(np.int32(failure is not None))
    if failure is not None:
        raise failure
    if failed:
        raise RuntimeError(f"{what} failed on host 0, where its error is told")
    return found


def whole(tree: Any) -> Any:
    """Global arrays as every host can read them."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


class StopSignal:
    """Whether SIGTERM came, to this host or to any: all hosts learn of it at the same step."""

    def __init__(self):
        self._came = False
        self._alone = jax.process_count() == 1
        if self._alone:
            try:
                self._before = signal.signal(signal.SIGTERM, self._note)
            except ValueError:  # not in the main thread: whoever runs it there stops it
                self._before = None

    def _note(self, *_) -> None:
        self._came = True

    def came(self, step: int) -> bool:
        """To be asked at every step by every host."""
        if self._alone:
            return self._came
        return multihost_utils.reached_preemption_sync_point(step)

    def __enter__(self) -> "StopSignal":
        return self

    def __exit__(self, *_) -> None:
        if self._alone and self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
