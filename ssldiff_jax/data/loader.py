"""Batches for training: shuffled, seeded, sharded by host, and restorable to the example.

Every example carries `index`, its place in the global stream, which keys its noise; so the
numbers do not depend on how many hosts or devices share a batch.
"""

import dataclasses
import functools
from collections.abc import Iterator

import grain
import jax
import numpy as np

from ssldiff_jax.data import builder, crops, store


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Threads that decode, and examples they keep ready."""

    num_threads: int
    prefetch: int


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches without end; each is decided by its number alone.

    `per_batch` counts the elements of `dataset`'s source that one of them takes.
    """

    dataset: grain.IterDataset
    per_batch: int

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self.since(0)

    def since(self, number: int) -> Iterator[dict[str, np.ndarray]]:
        """Those from a number on."""
        iterator = iter(self.dataset)
        iterator.set_state({"next_index": number * self.per_batch})
        return iterator


def _share(batch_size: int) -> int:
    """Examples of a batch on every host."""
    count = jax.process_count()
    if batch_size % count:
        raise ValueError(
            f"batch_size must divide over hosts, got batch_size={batch_size}, hosts={count}"
        )
    return batch_size // count


def _with_index(index: int, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return example | {"index": np.int32(index % np.iinfo(np.int32).max)}


def patch_batches(
    records: builder.RecordSource,
    *,
    side: int,
    dihedral: bool,
    batch_size: int,
    seed: int,
    config: LoaderConfig,
) -> Batches:
    """Random crops of `side` px: batches {image_uint8 (B, side, side, 3), index (B,)}."""

    def cut(record: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
        crop = crops.draw_crop(generator, 0, min(record.shape[:2]), side, dihedral)
        return {"image_uint8": crop.cut(record, side)}

    share = _share(batch_size)
    dataset = grain.MapDataset.source(records).seed(seed).shuffle().repeat().random_map(cut)
    dataset = dataset.map_with_index(_with_index)
    dataset = dataset.slice(slice(jax.process_index(), None, jax.process_count()))
    options = grain.ReadOptions(
        num_threads=config.num_threads, prefetch_buffer_size=config.prefetch
    )
    return Batches(dataset.to_iter_dataset(options).batch(share, drop_remainder=True), share)


@dataclasses.dataclass(frozen=True)
class CachedBatches:
    """This host's share of every batch of aligned stores, read at once. Copying is what feeding
    costs: an example at a time takes ten times as long.

    Raises ValueError when their lengths differ.
    """

    stores: tuple[store.Store, ...]
    batch_size: int
    seed: int

    def __post_init__(self):
        first, *others = self.stores
        for other in others:
            if len(other) != len(first):
                raise ValueError(
                    f"stores must be aligned, got {len(first)} examples in {first} and "
                    f"{len(other)} in {other}"
                )

    @functools.cached_property
    def _order(self) -> grain.MapDataset:
        return grain.MapDataset.range(len(self.stores[0])).seed(self.seed).shuffle().repeat()

    def __len__(self) -> int:
        return np.iinfo(np.int64).max // self.batch_size

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        start = number * self.batch_size
        stream = range(start + jax.process_index(), start + self.batch_size, jax.process_count())
        numbers = [int(self._order[i]) for i in stream]
        index = np.array(stream) % np.iinfo(np.int32).max
        batch = {"index": index.astype(np.int32)}
        for part in self.stores:
            batch |= part.batch(numbers)
        return batch


def cached_batches(
    latents: store.Store,
    embeddings: store.Store,
    *,
    batch_size: int,
    seed: int,
    config: LoaderConfig,
) -> Batches:
    """Cached pairs: batches {moments (B, h, w, 2C), embedding (B, D), index (B,)}."""
    _share(batch_size)
    source = CachedBatches((latents, embeddings), batch_size, seed)
    options = grain.ReadOptions(
        num_threads=config.num_threads,
        prefetch_buffer_size=max(config.num_threads, config.prefetch // batch_size),
    )
    return Batches(grain.MapDataset.source(source).to_iter_dataset(options), 1)
