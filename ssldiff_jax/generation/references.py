"""Held-out regions and patches, generated again."""

import numpy as np

from ssldiff_jax.core import arrays, patch_grid
from ssldiff_jax.generation import generator
from ssldiff_jax.generation import plan as drawing_lib
from ssldiff_jax.runs import artifacts
from ssldiff_jax.sampler import conditions


def drawing_of(
    model: generator.Generator, reference: artifacts.Reference, *, seed: int
) -> drawing_lib.ImagePlan:
    """A region to draw again, conditioned as the config says."""
    if model.config.sample.conditioning == "dense":
        read = conditions.array_reader(reference.image)
        return model.plan_from_reference(read, reference.image.shape[:2], seed=seed)
    return model.plan_from_grid(reference.grid, seed=seed)


def page(
    model: generator.Generator, reference: artifacts.Reference, count: int, draws: int
) -> arrays.ImageUint8:
    """Some cells of a reference, each beside draws from its embedding."""
    cells = patch_grid.cut_cells(reference.image, model.patch_px)
    chosen = np.linspace(0, len(cells) - 1, min(count, len(cells))).astype(int)
    embedding = np.repeat(reference.grid.reshape(len(cells), -1)[chosen], draws, axis=0)
    drawn = model.sample_patches(embedding, seed=model.config.seed + 100)
    drawn = drawn.reshape(len(chosen), draws, *cells.shape[1:])
    rows = np.concatenate([cells[chosen][:, None], drawn], axis=1)
    return patch_grid.mosaic(rows.reshape(-1, *cells.shape[1:]), 1 + draws)
