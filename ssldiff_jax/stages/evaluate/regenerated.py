"""Held-out patches, each regenerated from its embedding, as files that any tool can evaluate."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import rng
from ssldiff_jax.evaluation.features import image_files, networks
from ssldiff_jax.formats import atomic, rows
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import patch_samples
from ssldiff_jax.train import logs

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
        """Write the files; blocks of which all files are there are left as they are."""
        starts = range(0, len(self.held_out), BLOCK)
        progress = logs.Progress("patches regenerated", len(self.held_out))
        for block, start in enumerate(starts):
            stop = min(start + BLOCK, len(self.held_out))
            if not (self.real.has(start, stop) and self.generated.has(start, stop)):
                pixels = self.held_out.pixels(start, stop)
                # Real ones too: both sides are read back from files of one format.
                self.real.write(start, pixels)
                # By block, so that one that is made again is the same.
                block_seed = rng.seed_of(seed, "block", block)
                generated = model.sample_patches(model.encoder(pixels), seed=block_seed)
                self.generated.write(start, generated)
            progress.update(stop - start)
        progress.close()

    def features(
        self, extractor: networks.Extractor
    ) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N D"]]:
        """(of real, of generated patches), kept beside the patches and mapped."""
        count = len(self.held_out)
        of = lambda files: extract(extractor, files.read, count, files.folder / "features")
        return of(self.real), of(self.generated)


def extract(
    extractor: networks.Extractor,
    read: Callable[[int, int], image_files.Patches],
    count: int,
    folder: pathlib.Path,
) -> Float[np.ndarray, "N D"]:
    """Features of `count` images, block by block into a file of `folder`, which is mapped. Its name
    has the network's digest: one that is there is taken as it is, and images of one folder are the
    same ones."""
    path = folder / f"{extractor.name}-{extractor.digest}-{count}.npy"

    def parts() -> Iterator[np.ndarray]:
        progress = logs.Progress(f"features by {extractor.name}", count)
        for start, stop in blocks(count):
            yield extractor(read(start, stop))
            progress.update(stop - start)
        progress.close()

    def write(temporary: pathlib.Path) -> None:
        # Written as they come: half a million features are 1.5 GB.
        rows.write(temporary, (count, extractor.dim), np.float32, parts())

    if not path.exists():
        atomic.write_atomic(path, write)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of every block."""
    for start in range(0, count, BLOCK):
        yield start, min(start + BLOCK, count)
