"""Stores that the hosts of a run write together, a shard at a time."""

import itertools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ssldiff_jax.data import ahead, store
from ssldiff_jax.data import crops as crops_lib
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.train import hosts, logs

BATCH = 256
_READ = 32  # records that a thread reads together


def each_shard(
    shared: store.SharedStore, name: str, write: Callable[[int, logs.Progress], None]
) -> None:
    """Let this host write its shards of a store; returns when all hosts have."""
    # Shards that were whole when a host died are not written again.
    missing = shared.missing(jax.process_index(), jax.process_count())
    progress = logs.Progress(name, sum(len(shared.examples(number)) for number in missing))
    for number in missing:
        write(number, progress)
    progress.close()
    hosts.barrier(f"{name} are written")


def records_of(
    source: records_lib.RecordSource,
    table: crops_lib.CropTable,
    numbers: range,
    progress: logs.Progress,
    threads: int,
) -> Iterator[list[tuple[crops_lib.Crop, np.ndarray]]]:
    """Batches of training crops, each with its record, in the order of the table; threads read
    the next ones."""

    def read(part: range) -> list[tuple[crops_lib.Crop, np.ndarray]]:
        crops = [table[i] for i in part]
        return list(zip(crops, source.batch([crop.record for crop in crops]), strict=True))

    parts_ = (numbers[i : i + _READ] for i in range(0, len(numbers), _READ))
    # Two batches ahead, or two reads a thread where these are more.
    records = ahead.ahead(read, parts_, threads=threads, count=2 * max(threads, BATCH // _READ))
    while some := list(itertools.islice(records, BATCH // _READ)):
        batch = [pair for part in some for pair in part]
        yield batch
        progress.update(len(batch))
