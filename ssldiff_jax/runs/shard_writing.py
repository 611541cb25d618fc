"""Stores that the hosts of a run write together, a shard at a time.

Three things go on at once: threads read and decode batches, the devices compute, and the step's
own thread waits for results and writes them. None stops at the end of a shard.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import jax
import numpy as np

from ssldiff_jax.data import ahead, loader, store
from ssldiff_jax.train import hosts, logs

T, R = TypeVar("T"), TypeVar("R")

BEGUN = 2
"""Batches that the devices are given beyond the one whose result is written: one that is computed,
and one to begin when it ends."""


@dataclasses.dataclass(frozen=True)
class Work(Generic[T, R]):
    """What is made of examples, a batch at a time.

    Attributes:
        read: pixels of examples, in one of several threads.
        start: begins what the devices do, and returns what waits for it.
        size: examples of a batch.
        loader: how many threads read, and how many examples they keep ready.
    """

    read: Callable[[Sequence[int]], T]
    start: Callable[[T], Callable[[], R]]
    size: int
    loader: loader.LoaderConfig

    def results(self, *numbers: Sequence[int]) -> Generator[R, None, None]:
        """Of batches of each of several sequences of examples, in their order; read ahead, and
        begun before the last result is used."""
        size = self.size
        parts = (part[i : i + size] for part in numbers for i in range(0, len(part), size))
        threads = self.loader.num_threads
        # Counted in batches; one for each thread at least.
        ready = max(threads, self.loader.prefetch // size)
        read = ahead.ahead(self.read, parts, threads=threads, count=ready)
        return ahead.started(self.start, read, count=BEGUN)


def write(
    shared: store.SharedStore,
    name: str,
    work: Work[T, store.Batch],
    tally: Callable[[store.Batch], np.ndarray] | None = None,
) -> None:
    """Let this host write its shards of a store from batches of `work`; returns when all hosts
    have."""
    with contextlib.closing(work.results(*map(shared.examples, _missing(shared)))) as batches:

        def shard(number: int, progress: logs.Progress) -> None:
            count = -(-len(shared.examples(number)) // work.size)
            of_shard = itertools.islice(batches, count)
            shared.write(number, counted(of_shard, progress), tally)

        each_shard(shared, name, shard)


def each_shard(
    shared: store.SharedStore, name: str, write: Callable[[int, logs.Progress], None]
) -> None:
    """Let this host write its shards of a store; returns when all hosts have."""
    missing = _missing(shared)
    progress = logs.Progress(name, sum(len(shared.examples(number)) for number in missing))
    for number in missing:
        write(number, progress)
    progress.close()
    hosts.barrier(f"{name} are written")


def _missing(shared: store.SharedStore) -> list[int]:
    """Of this host; shards that were whole when it died are not written again."""
    return shared.missing(jax.process_index(), jax.process_count())


def counted(batches: Iterable[store.Batch], progress: logs.Progress) -> Iterator[store.Batch]:
    """Batches, each counted when the next one is asked for."""
    for batch in batches:
        yield batch
        progress.update(len(next(iter(batch.values()))))
