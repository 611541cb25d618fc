"""Part of the tool `bench`: how many examples a second this machine can feed."""

import dataclasses
import functools
import pathlib
import shutil
import time
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import scipy.ndimage

from ssldiff_jax.core import arrays, machine
from ssldiff_jax.data import loader, records, store
from ssldiff_jax.stages.tools.bench import results

_LATENTS, _DIM, _COUNT = (64, 64, 3), 384, 8192
_BATCH = 256
_PATCH_PX, _NUM_PATCHES, _QUALITY = 256, 64, 95


def rows(
    folder: pathlib.Path, settings: loader.LoaderConfig, repetitions: int = 5
) -> Iterator[results.Figure]:
    """Cached latents with embeddings, and JPEG patches decoded and cropped."""
    folder = folder / "input"
    cached = loader.cached_batches(*_stores(folder), batch_size=_BATCH, seed=0, config=settings)
    yield "input/cached", _rates(cached, repetitions, num_batches=80), "examples/s"
    shutil.rmtree(folder)
    patches = loader.patch_batches(
        _patches(), side=_PATCH_PX, dihedral=True, batch_size=_BATCH, seed=0, config=settings
    )
    per_core = [rate / machine.cores() for rate in _rates(patches, repetitions, num_batches=12)]
    yield "input/jpeg_per_core", per_core, "patches/s"


@dataclasses.dataclass(frozen=True)
class _Squares:
    """Blurred noise as stored squares, decoded every time."""

    encoded: tuple[bytes, ...]
    num_bands = 3
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, number: int) -> arrays.Pixels:
        return records.decode(self.encoded[number])


def _patches() -> _Squares:
    source = np.random.default_rng(0)
    # Noise alone is far larger as JPEG, and slower to decode, than tissue.
    blurred = functools.partial(scipy.ndimage.gaussian_filter, sigma=(2, 2, 0))
    square = lambda: blurred(source.normal(128, 200, (_PATCH_PX, _PATCH_PX, 3)))
    pixels = (square().clip(0, 255).astype(np.uint8) for _ in range(_NUM_PATCHES))
    return _Squares(tuple(records.encode(p, _QUALITY).getvalue() for p in pixels))


def _stores(folder: pathlib.Path) -> tuple[store.Store, store.Store]:
    source = np.random.default_rng(0)
    fields = (
        store.Field("moments", _LATENTS, "bfloat16"),
        store.Field("embedding", (_DIM,), "float32"),
    )
    for field in fields:
        writer = store.StoreWriter(folder / field.name, (field,))
        for _ in range(_COUNT // _BATCH):
            values = source.standard_normal((_BATCH, *field.shape), np.float32)
            writer.append(**{field.name: values.astype(ml_dtypes.bfloat16)})
        writer.close()
    moments, embeddings = (store.Store(folder / field.name) for field in fields)
    return moments, embeddings


def _rates(batches: loader.Batches, repetitions: int, num_batches: int) -> list[float]:
    """Examples a second, once the threads are at work."""
    iterator, rates = iter(batches), []
    for repetition in range(repetitions + 1):
        began = time.perf_counter()
        for _ in range(num_batches):
            next(iterator)
        # The first time threads are still filling their queues.
        if repetition:
            rates.append(num_batches * _BATCH / (time.perf_counter() - began))
    return rates
