"""Arrays that the hosts of a run make together, each array by one host."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np

from ssldiff_jax.formats import atomic
from ssldiff_jax.train import hosts, logs


@dataclasses.dataclass(frozen=True)
class HostArrays:
    """Arrays by number, each in a file of `folder`, which all hosts share. A step that is started
    again takes those that are there as they are; it drops all of them when it is done."""

    folder: pathlib.Path
    count: int

    def make(self, what: str, make: Callable[[int], np.ndarray]) -> None:
        """Make those that are missing, array i by `make(i)`; returns when all are there. `make` is
        called by one host, alone.

        Raises what it raises, and ElsewhereError where it failed on another host.
        """
        # Listed: a file that was looked for in vain may seem absent when another host has made it.
        there = {path.name for path in self.folder.glob("*.npy")} if hosts.is_first() else set()
        missing = hosts.missing(self.count, lambda number: self._path(number).name in there)
        progress = logs.Progress(what, len(missing[hosts.share()]))

        def write(number: int) -> None:
            array = make(number)
            atomic.write_atomic(self._path(number), lambda path: np.save(path, array))
            progress.update()

        hosts.divide(what, missing, write)
        progress.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.count):
            yield np.load(self._path(number), allow_pickle=False)

    def drop(self) -> None:
        """Delete them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:06d}.npy"
