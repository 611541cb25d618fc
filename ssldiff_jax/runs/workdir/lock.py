"""One process at a time works on a stage's folder."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from ssldiff_jax.runs import stage
from ssldiff_jax.train import hosts


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Keep other processes from working on `folder`; the first host keeps it for all.

    A killed process keeps nothing. Where a file system knows no locks, or nothing can be written,
    nobody is kept off. Raises WorkdirError where another process is at work.
    """
    path, locks = folder.with_name(f".{folder.name}.lock"), []
    hosts.on_first_host(f"claiming {folder.name}", lambda: locks.extend(_claimed(path, folder)))
    try:
        yield
    finally:
        for lock in locks:
            with contextlib.suppress(OSError):
                # Before it is given back: who opened it meanwhile sees that it is gone, and is
                # refused.
                path.unlink()
            os.close(lock)


def _claimed(path: pathlib.Path, folder: pathlib.Path) -> Iterator[int]:
    """The open lock; nothing where there are none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return
    try:
        # The kernel lets go of it when the process ends, however it ends.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_same = os.path.exists(path) and os.path.samestat(os.fstat(lock), os.stat(path))
    except BlockingIOError:
        is_same = False
    except OSError:
        os.close(lock)
        return
    if not is_same:  # another process has it, or has just given it back
        os.close(lock)
        raise stage.WorkdirError(
            f"{folder} must be used by one process at a time, got another one running there; wait "
            "until it ends, or choose another --workdir"
        )
    yield lock
