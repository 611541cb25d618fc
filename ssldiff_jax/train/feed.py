"""Batches on their way to the devices."""

import collections
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from ssldiff_jax.train import mesh as mesh_lib

_AHEAD = 2  # batches: one is computed with while the next one travels


class Batches(Protocol):
    """This host's shares of batches without end; each is decided by its number, so the step of a
    run says where it is in its data, on any number of hosts."""

    def since(self, number: int) -> Iterator[Mapping[str, Any]]:
        """Those from a number on."""

    def shifted(self, count: int) -> "Batches":
        """With examples that lie `count` later in the stream: batches before were of another
        size."""


class Feed:
    """Batches as global arrays from the first step's on, transferred before they are needed."""

    def __init__(self, batches: Batches, mesh: Mesh, first: int):
        self._iterator, self._mesh = batches.since(first), mesh
        self._ready: collections.deque[Any] = collections.deque()
        self.waited = 0.0

    def __next__(self) -> dict[str, jax.Array]:
        """The next batch; `waited` adds up the seconds until it was there."""
        began = time.monotonic()
        if not self._ready:
            self._transfer()
        self.waited += time.monotonic() - began
        return self._ready.popleft()

    def fill(self) -> None:
        """Start the transfer of the batch after this one, while the devices are at work."""
        began = time.monotonic()
        while len(self._ready) < _AHEAD - 1:
            self._transfer()
        self.waited += time.monotonic() - began

    def _transfer(self) -> None:
        self._ready.append(mesh_lib.to_global(next(self._iterator), self._mesh))
