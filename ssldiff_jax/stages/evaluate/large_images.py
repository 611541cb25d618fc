"""Large images against their regions, by every network of features."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import moments, patch_grid
from ssldiff_jax.evaluation.features import image_files, networks
from ssldiff_jax.evaluation.metrics import frechet_interval, intervals, large_image
from ssldiff_jax.stages.evaluate import protocol

Features = Float[np.ndarray, "_ D"]

_LEAST = 3
"""Of features on a side: what is left without one must have a covariance."""


def run(
    files: protocol.PatchFiles, pairs: list[large_image.Pair], by: protocol.Networks
) -> dict[str, Any]:
    """By extractor: the Fréchet distance of `crops` (Graikos et al. 2024) to real ones half a cell
    away; that of the real crops themselves, `crops_real_shifted`, which a true image would have;
    and of `whole` images by networks that take any size. Figures of fewer than three crops or
    images are left out."""
    return {name: _of(files, pairs, network) for name, network in by.items()}


def _of(
    files: protocol.PatchFiles, pairs: list[large_image.Pair], network: networks.Extractor
) -> dict[str, Any]:
    side, through = files.px, files.format.through
    generated, real = [pair.image for pair in pairs], [pair.reference for pair in pairs]
    published = files.published(network)

    def rows(image: np.ndarray, shift: int) -> list[Features]:
        """Features of every row of cells."""
        cells = patch_grid.cut_cells(image, side, shift)
        count = (image.shape[0] - shift) // side
        return np.split(network(through(cells)), count) if len(cells) else []

    distances: dict[str, Any] = {}
    # Crops of the same places would be compared pixel by pixel: generated ones lie between real
    # ones.
    crops, moved = ([rows(image, side // 2) for image in group] for group in (generated, real))
    if sum(len(row) for image in crops for row in image) >= _LEAST:
        cells = [rows(image, 0) for image in real]
        # n rows of cells have n − 1 rows of crops between them.
        own = _bands([_joined(image) for image in cells])
        sides = [published.moments] if published else own
        distance = frechet_interval.frechet_estimate
        distances["crops"] = _as_facts(distance(_bands(crops), sides, paired=not published))
        distances["crops_real_shifted"] = _as_facts(distance(_bands(moved), own, paired=True))
    if network.name in networks.ANY_SIZE and len(pairs) >= _LEAST:
        distances["whole"] = _as_facts(_whole(network, through, generated, real))
    return distances


def _joined(rows: list[Features]) -> list[Features]:
    """Rows of cells as many as there are of crops between them: the last two are one."""
    return [*rows[:-2], np.concatenate(rows[-2:])] if len(rows) > 1 else []


def _bands(images: list[list[Features]]) -> list[moments.Moments]:
    """Moments of bands of images, some rows each; those of crops and of cells are of one place."""
    rows = [row for image in images for row in image]
    # Rows of one image side by side, so that neighbours leave a jackknife together.
    parts = intervals.blocks_of(len(rows))
    return [moments.Moments.of(np.concatenate(rows[part]), "features") for part in parts]


def _whole(
    network: networks.Batched,
    through: Callable[[image_files.Patches], image_files.Patches],
    generated: list[np.ndarray],
    real: list[np.ndarray],
) -> intervals.Estimate:
    """Whole images, each shrunk to what the network takes."""
    # Large images are of different sizes, and few: each is a batch.
    alone = dataclasses.replace(network, batch_size=1)

    def of(images: list[np.ndarray]) -> Features:
        return np.concatenate([alone(through(image[None])) for image in images])

    sides: list[Features] = [of(generated), of(real)]
    blocks = (frechet_interval.blocks_of(side) for side in sides)
    return frechet_interval.frechet_estimate(*blocks, paired=True)


def _as_facts(estimate: intervals.Estimate) -> dict[str, Any]:
    return dataclasses.asdict(estimate)
