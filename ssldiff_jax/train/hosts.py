"""What the hosts of one run agree on: that they run the same, and when they stop."""

import contextlib
import itertools
import json
import logging
import os
import pathlib
import secrets
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ssldiff_jax.core import interrupt

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_ALONE: list[str] = []
_WAITING: list[str] = []
_SYNC_POINTS = itertools.count(1)


class StoppedError(RuntimeError):
    """The run was asked to stop, saved itself, and resumes when it is started again."""


class ElsewhereError(RuntimeError):
    """Another host failed; its log says why."""


def require_same(what: str, facts: Any) -> None:
    """Refuse to start where hosts were given different things.

    Raises ValueError, on every host, naming those that differ from the first.
    """
    if jax.process_count() == 1:
        return
    digest = np.uint32(zlib.crc32(json.dumps(facts, sort_keys=True, default=str).encode()))
    with _waiting(f"the same {what}"):
        digests = np.ravel(multihost_utils.process_allgather(digest))
    others = [int(i) for i in np.flatnonzero(digests != digests[0])]
    if others:
        raise ValueError(
            f"all hosts must have the same {what}, got another than host 0's on host "
            f"{', '.join(map(str, others))} of {len(digests)}"
        )


def place() -> str:
    """What this host does, for the log: works, or waits for the others, and where."""
    return f"waiting at {_WAITING[-1]!r}" if _WAITING else "working"


@contextlib.contextmanager
def _waiting(where: str) -> Iterator[None]:
    _WAITING.append(where)
    try:
        yield
    finally:
        _WAITING.pop()


def is_first() -> bool:
    """Whether this host writes what is written once: the first, and each where it works alone."""
    return jax.process_index() == 0 or bool(_ALONE)


def together() -> bool:
    """Whether several hosts do what is done now."""
    return jax.process_count() > 1 and not _ALONE


def broadcast_first(mine: int) -> int:
    """What the first host says: clocks differ, and all must do the same."""
    if not together():
        return mine
    return int(multihost_utils.broadcast_one_to_all(np.int32(mine)))


def same_number() -> int:
    """A random number that all hosts have."""
    return int(multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32))))


def of_first(array: np.ndarray) -> np.ndarray:
    """An array as the first host computed it; that of others has its shape and dtype, and may
    differ by what their devices round."""
    return np.asarray(multihost_utils.broadcast_one_to_all(array)) if together() else array


def missing(count: int, is_there: Callable[[int], bool]) -> list[int]:
    """The numbers below `count` of what is not there, as the first host sees it: a shared folder
    may show another a file a moment later, and hosts that counted apart would each leave an item to
    the other. No other looks: what was not there may seem so for some time."""
    there = np.array([is_first() and is_there(number) for number in range(count)], bool)
    if together() and count:
        with _waiting("what is left to do"):
            there = np.asarray(multihost_utils.broadcast_one_to_all(there))
    return np.flatnonzero(~there).tolist()


def barrier(where: str) -> None:
    """Wait until every host is here."""
    if together():
        with _waiting(where):
            multihost_utils.sync_global_devices(where)


def leave_together() -> None:
    """Wait, before this process ends, until every device of every host has nothing left to share.

    The functions above return when one device of this host has the answer. Who left then would keep
    the devices of others waiting for its own, which gloo gives up after minutes.
    """
    if jax.process_count() == 1:
        return
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    ones = jax.make_array_from_callback((mesh.size,), spread, lambda i: np.ones(mesh.size)[i])
    # Collectives of a device are done in their order: after this one, all are.
    with _waiting("all hosts are done"):
        jax.block_until_ready(jax.jit(jnp.sum, out_shardings=everywhere)(ones))


def on_first_host(what: str, work: Callable[[], T]) -> T | None:
    """Work that the first host does while the others wait; None on these.

    Raises what the work raises, and on the others ElsewhereError.
    """
    if not together():
        return work()
    result = failure = None
    if is_first():
        _ALONE.append(what)
        try:
            result = work()
        except Exception as error:  # the others wait to hear of it
            failure = error
        finally:
            _ALONE.pop()
    try:
        with _waiting(what):
            failed = multihost_utils.broadcast_one_to_all(np.int32(failure is not None))
    finally:
        # Also where nobody is left to hear of it.
        if failure is not None:
            raise failure
    if failed:
        raise ElsewhereError(f"{what} failed on host 0: the log of host 0 has the error")
    return result


def share() -> slice:
    """What this host does of a list that all go through: every n-th, so that what takes long is
    shared wherever it stands."""
    return slice(jax.process_index(), None, jax.process_count()) if together() else slice(None)


def divide(what: str, items: Sequence[T], work: Callable[[T], None]) -> None:
    """Let each host work on its share of the items, alone; returns when all are done. All hosts
    must give the same items.

    Raises what the work raises, and on hosts whose own items are done ElsewhereError.
    """
    mine = items[share()]

    def work_on_mine() -> None:
        for item in mine:
            work(item)

    each_alone(what, work_on_mine)


def each_alone(what: str, work: Callable[[], T]) -> T:
    """Work that every host does for itself; returns when all are done.

    Raises what the work raises, and on the other hosts ElsewhereError.
    """
    if not together():
        return work()
    result = failure = None
    _ALONE.append(what)
    try:
        result = work()
    except Exception as error:
        # Said at once: the others hear of it when their own work is done, which is kept.
        _LOG.error("%s failed, and the other hosts finish theirs: %s", what, error)
        failure = error
    finally:
        _ALONE.pop()
    with _waiting(what):
        failed = np.ravel(multihost_utils.process_allgather(np.int32(failure is not None)))
    if failure is not None:
        raise failure
    if failed.any():
        where = ", ".join(map(str, np.flatnonzero(failed)))
        raise ElsewhereError(
            f"{what} failed on host {where}: the log of host {where} has the error"
        )
    return result


def to_host(tree: Any) -> Any:
    """Global arrays as every host can read them."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


class StopSignal:
    """Whether SIGTERM or Ctrl-C came, to this host or to any: all hosts learn of it at the same
    step."""

    def __init__(self):
        self._came = False
        self._alone = jax.process_count() == 1
        self._restore = contextlib.ExitStack()

    def _note(self, *_) -> None:
        self._came = True

    def came(self) -> bool:
        """To be called by every host equally often, at every step and stage."""
        if self._alone:
            return self._came
        # Counted over the whole process: a point to stop at must lie ahead.
        return multihost_utils.reached_preemption_sync_point(next(_SYNC_POINTS))

    def __enter__(self) -> "StopSignal":
        # Of several, jax itself waits for SIGTERM.
        if self._alone:
            self._restore.enter_context(interrupt.saving(self._note))
            with contextlib.suppress(ValueError):  # not in the main thread: who runs it stops it
                before = signal.signal(signal.SIGTERM, self._note)
                self._restore.callback(signal.signal, signal.SIGTERM, before)
        return self

    def __exit__(self, *_) -> None:
        self._restore.close()


def pass_on_interrupts() -> None:
    """Let Ctrl-C do what SIGTERM does to a process of several: all hosts stop together."""
    if jax.process_count() > 1:
        interrupt.always(lambda: os.kill(os.getpid(), signal.SIGTERM))


def stop_between(where: str) -> None:
    """Stop after a stage, or where one waits, if a signal came to any host; alone, the signal
    itself does, but for one that came when a training had just been saved. Called by every host.

    Raises StoppedError on every host, which says `where`.
    """
    if together():
        is_requested = multihost_utils.reached_preemption_sync_point(next(_SYNC_POINTS))
    else:
        is_requested = interrupt.came()
    if is_requested:
        raise StoppedError(f"stopped {where}; the same command resumes")


def require_shared(folder: pathlib.Path) -> None:
    """Refuse a folder that is another one on another host.

    Raises ValueError on the hosts that do not see what the first one writes there.
    """
    if not together():
        return
    token = folder / ".hosts"

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        token.write_text(secrets.token_hex(8))

    on_first_host("writing to the workdir", write)
    text = token.read_text() if token.exists() else "nothing"
    codes = np.ravel(multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode()))))
    others = [int(i) for i in np.flatnonzero(codes != codes[0])]
    if others:
        raise ValueError(
            f"--workdir must be a folder that all hosts share, got another {folder} on host "
            f"{', '.join(map(str, others))} than on host 0"
        )
