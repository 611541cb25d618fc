"""Held-out patches, each regenerated from its embedding, as files that any tool can evaluate."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import rng
from ssldiff_jax.evaluation.features import image_files, networks
from ssldiff_jax.formats import atomic, rows
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import host_arrays, patch_samples
from ssldiff_jax.train import hosts, logs

BLOCK = 512
"""Patches that are in memory together."""


@dataclasses.dataclass(frozen=True)
class RegeneratedPatches:
    """Held-out patches as they were read, in `real`, and as they were regenerated, in
    `generated`."""

    held_out: patch_samples.Sample
    real: image_files.Files
    generated: image_files.Files

    def make(self, model: generator.Generator, seed: int) -> None:
        """Write the files, each block by one host; blocks of which all files are there are left as
        they are."""
        every, sides = blocks(len(self.held_out)), (self.real, self.generated)
        are_there = lambda number: all(files.has(*every[number]) for files in sides)
        missing = hosts.missing(len(every), are_there)
        progress = logs.Progress("blocks of patches regenerated", len(missing[hosts.share()]))

        def write(number: int) -> None:
            self._write_block(number, model, seed)
            progress.update()

        hosts.divide("patches regenerated", missing, write)
        progress.close()

    def _write_block(self, number: int, model: generator.Generator, seed: int) -> None:
        start, stop = blocks(len(self.held_out))[number]
        pixels = self.held_out.pixels(start, stop)
        # Real ones too: both sides are read back from files of one format.
        self.real.write(start, pixels)
        # By block, so that one that is made again is the same.
        block_seed = rng.seed_of(seed, "block", number)
        condition = model.condition_encoder(pixels)
        self.generated.write(start, model.sample_patches(condition, seed=block_seed))

    def features(
        self, extractor: networks.Extractor
    ) -> tuple[Float[np.ndarray, "N D"] | None, Float[np.ndarray, "N D"] | None]:
        """(of real, of generated patches), kept beside the patches and mapped; None on hosts that
        are not the first."""
        count = len(self.held_out)
        of = lambda files: extract(extractor, files.read, count, files.folder / "features")
        return of(self.real), of(self.generated)


def extract(
    extractor: networks.Extractor,
    read: Callable[[int, int], image_files.Patches],
    count: int,
    folder: pathlib.Path,
) -> Float[np.ndarray, "N D"] | None:
    """Features of `count` images in a file of `folder`, which is mapped; hosts share the blocks,
    and the first alone, who measures, gets them. The file's name has the network's digest: one that
    is there is taken as it is, and images of one folder are the same ones."""
    path, every = folder / f"{extractor.name}-{extractor.digest}-{count}.npy", blocks(count)
    parts = host_arrays.HostArrays(path.with_suffix(".parts"), len(every))
    if not hosts.broadcast_first(hosts.is_first() and path.exists()):
        parts.make(f"blocks of features by {extractor.name}", lambda i: extractor(read(*every[i])))
        # Written as they come: half a million features are 1.5 GB.
        join = lambda at: rows.write(at, (count, extractor.dim), np.float32, parts)
        hosts.on_first_host(f"{path.name} is written", lambda: atomic.write_atomic(path, join))
    if not hosts.is_first():
        return None
    # Also of a run that was killed before it could.
    parts.drop()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def blocks(count: int) -> list[tuple[int, int]]:
    """(start, stop) of every block."""
    return [(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
