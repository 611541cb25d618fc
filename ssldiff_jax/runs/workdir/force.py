"""A stage that is run again: beside its old output, whose place it takes when it is whole.

Until then both are kept, checkpoints in a bucket too: a stage that is run again needs its room on
the disk twice. At any moment one of them is whole, and `recover` ends what a crash left half-way.
"""

import contextlib
import fcntl
import logging
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage as stage_lib
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.train import hosts

if TYPE_CHECKING:
    from etils import epath

_LOG = logging.getLogger(__name__)

_NEIGHBOUR = re.compile(r"\.(?P<name>.+)\.(new|old)")
EARLIER = "earlier"
"""Folder of the work directory with what tools made of earlier requests."""


def beside(place: pathlib.Path) -> pathlib.Path:
    """Where a stage is rebuilt whose folder is `place`."""
    return _neighbour(place, "new")


def latest(folders: folders_lib.Folders, name: str) -> pathlib.Path:
    """The folder of `name` that is being made, if one is, or the one in its place."""
    place = folders.of_stage(name)
    new = beside(place)
    return new if (new / "stage.json").exists() else place


def recover(table: stage_lib.Table, folders: folders_lib.Folders) -> None:
    """Let every stage that is whole beside its old folder take its place."""

    def work() -> None:
        for name in table:
            if not folders.borrows(name):
                for place in _places(table, name, folders):
                    # A start after a crash ends what was left half-way.
                    settle(table, name, folders.at(name, place))

    hosts.on_first_host("looking for rebuilt stages", work)


def settle(table: stage_lib.Table, name: str, folders: folders_lib.Folders) -> None:
    """Let what was made beside take its place where it is whole, then remove what was there; goes
    on where a crash ended it.

    What a tool made of another request is moved to `earlier/` instead.
    """
    place = folders.of_stage(name)
    new, old = _neighbour(place, "new"), _neighbour(place, "old")
    # lexists: a folder may be a link to another disk, and that disk away.
    if not (new / "done.json").exists() and not os.path.lexists(old):
        return
    with _locked(folders.workdir):
        if (new / "done.json").exists():
            if os.path.lexists(place):
                _remove(table, name, folders, old)
                # A crash after this line leaves `new` whole and the place empty: the next start
                # goes on below.
                place.rename(old)
            new.rename(place)
        elif os.path.lexists(old) and not os.path.lexists(place):
            old.rename(place)
        _remove(table, name, folders, old)


def clear(name: str, folders: folders_lib.Folders) -> None:
    """Drop what was begun in the folder of `name` and cannot be resumed; checkpoints of it are
    moved to `earlier/`."""
    folder = folders.of_stage(name)
    saved = folders.checkpoints(name)
    if saved.exists() and any(saved.iterdir()):
        _LOG.warning("unfinished %s is kept in %s", folder, _set_aside(folders, name, folder))
    elif folder.exists():
        shutil.rmtree(folder)


def note_bucket(name: str, folders: folders_lib.Folders) -> None:
    """Give the checkpoints of a stage that begins a name in the bucket: that of the stage, or of
    one that is run again another, since folders of a bucket cannot be renamed."""
    folder = folders.of_stage(name)
    if not folders.bucket or (folder / folders_lib.SAVED_AS).exists():
        return
    bucket_name = f"{name}.{secrets.token_hex(4)}" if is_beside(folder) else name
    atomic.write_text(folder / folders_lib.SAVED_AS, bucket_name)


def is_beside(folder: pathlib.Path) -> bool:
    """Whether a folder is to take the place of another."""
    return _NEIGHBOUR.fullmatch(folder.name) is not None


def _neighbour(place: pathlib.Path, what: str) -> pathlib.Path:
    return place.with_name(f".{place.name}.{what}")


def _places(
    table: stage_lib.Table, name: str, folders: folders_lib.Folders
) -> Iterator[pathlib.Path]:
    """The folder of a stage, and those in it that have a neighbour."""
    root = folders.of_stage(name)
    yield root
    if table[name].slug is not None and root.exists():
        matches = (_NEIGHBOUR.fullmatch(path.name) for path in root.iterdir())
        yield from sorted({root / match["name"] for match in matches if match})


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """A tool that watches may start while a stage takes its place."""
    with (workdir / ".anew.lock").open("w") as lock:
        # Waits: it is held for some renames only.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(
    table: stage_lib.Table, name: str, folders: folders_lib.Folders, old: pathlib.Path
) -> None:
    """Delete what was replaced, or set aside what a tool made of another request."""
    if old.is_symlink():
        old.unlink()
    elif old.exists():
        if table[name].tool and _is_other_request(old, folders.of_stage(name)):
            moved_to = _set_aside(folders, name, old)
            _LOG.info("earlier output of %s, of another request, is kept in %s", name, moved_to)
            return
        saved = _in_bucket(folders.at(name, old), name)
        if saved is not None and saved.exists():
            # The bucket first: the note that says what is ours there goes with the folder.
            saved.rmtree()
        shutil.rmtree(old)


def _in_bucket(folders: folders_lib.Folders, name: str) -> "epath.Path | None":
    """Its checkpoints in a bucket, where it noted that they are its own."""
    noted = (folders.of_stage(name) / folders_lib.SAVED_AS).exists()
    return folders.checkpoints(name) if folders.bucket and noted else None


def _is_other_request(old: pathlib.Path, place: pathlib.Path) -> bool:
    """Whether a finished result is of another config than the one in its place."""
    paths = [folder / "stage.json" for folder in (old, place)]
    if not (old / "done.json").exists() or not all(path.exists() for path in paths):
        return False
    before, now = (atomic.read_json(path)["config"] for path in paths)
    return before != now


def _set_aside(folders: folders_lib.Folders, name: str, folder: pathlib.Path) -> pathlib.Path:
    """Move a folder to the first free name in `earlier/`."""
    number, root = 1, folders.workdir / EARLIER
    # Names in use are kept: nothing that was set aside is overwritten.
    while (target := root / f"{name}-{number}").exists():
        number += 1
    root.mkdir(exist_ok=True)
    folder.rename(target)
    return target
