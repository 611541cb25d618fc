"""Batches for training: shuffled, seeded, sharded by host, and restorable to the example.

Every example carries `index`, its place in the global stream, which keys its noise; so the
numbers do not depend on how many hosts or devices share a batch.
"""

import dataclasses
from typing import Any

import grain
import jax
import numpy as np

from ssldiff_jax.data import builder, crops, store


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Threads that decode, and examples they keep ready."""

    num_threads: int
    prefetch: int


def _stream(source: Any, seed: int) -> grain.MapDataset:
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat()


def _batches(dataset: grain.MapDataset, batch_size: int, config: LoaderConfig) -> grain.IterDataset:
    count = jax.process_count()
    if batch_size % count:
        raise ValueError(
            f"batch_size must divide over hosts, got batch_size={batch_size}, hosts={count}"
        )
    dataset = dataset.map_with_index(_with_index)
    dataset = dataset.slice(slice(jax.process_index(), None, count))
    options = grain.ReadOptions(
        num_threads=config.num_threads, prefetch_buffer_size=config.prefetch
    )
    return dataset.to_iter_dataset(options).batch(batch_size // count, drop_remainder=True)


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
) -> grain.IterDataset:
    """Random crops of `side` px: batches {image_uint8 (B, side, side, 3), index (B,)}."""

    def cut(record: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
        crop = crops.draw_crop(generator, 0, min(record.shape[:2]), side, dihedral)
        return {"image_uint8": crop.cut(record, side)}

    return _batches(_stream(records, seed).random_map(cut), batch_size, config)


@dataclasses.dataclass(frozen=True)
class Zipped:
    """Two stores, example by example.

    Raises ValueError when their lengths differ.
    """

    first: store.Store
    second: store.Store

    def __post_init__(self):
        if len(self.first) != len(self.second):
            raise ValueError(
                f"stores must be aligned, got {len(self.first)} examples in {self.first} and "
                f"{len(self.second)} in {self.second}"
            )

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.first[number] | self.second[number]


def cached_batches(
    latents: store.Store,
    embeddings: store.Store,
    *,
    batch_size: int,
    seed: int,
    config: LoaderConfig,
) -> grain.IterDataset:
    """Cached pairs: batches {moments (B, h, w, 2C), embedding (B, D), index (B,)}."""
    return _batches(_stream(Zipped(latents, embeddings), seed), batch_size, config)
