"""Held-out regions and patches, generated again."""

import numpy as np

from ssldiff_jax.core import arrays, patch_grid, rng
from ssldiff_jax.generation import generator, plan
from ssldiff_jax.runs import artifacts
from ssldiff_jax.sampler import conditions
from ssldiff_jax.sampler import grid as grid_lib


def plan_of(
    model: generator.Generator, reference: artifacts.Reference, *, seed: int
) -> plan.ImagePlan:
    """The plan of a region that is regenerated, conditioned as the config says."""
    if model.config.sample.conditioning == "dense":
        read = conditions.array_reader(reference.image)
        return model.planner.from_reference(read, reference.image.shape[:2], seed=seed)
    return model.plan_from_grid(reference.grid, seed=seed)


def page(
    model: generator.Generator, reference: artifacts.Reference, count: int, num_generated: int
) -> arrays.ImageUint8:
    """Some cells of a reference, each beside patches of its embedding."""
    cells, grid = patch_grid.cut_cells(reference.image, model.networks.patch_px), reference.grid
    if model.config.cells_are_tokens:
        # A patch is as many of them as a window has.
        k = model.trained.denoiser.config.tokens_per_side
        rows, cols = (size - size % k for size in grid.shape[:2])
        grid = grid_lib.packed(grid[:rows, :cols], k)
    # From all over the region: neighbours look alike.
    chosen = np.linspace(0, len(cells) - 1, min(count, len(cells))).astype(int)
    embedding = np.repeat(grid.reshape(len(cells), -1)[chosen], num_generated, axis=0)
    seed = rng.seed_of(model.config.seed, "sample/variations")
    generated = model.sample_patches(embedding, seed=seed)
    generated = generated.reshape(len(chosen), num_generated, *cells.shape[1:])
    rows = np.concatenate([cells[chosen][:, None], generated], axis=1)
    rows = model.config.data.reading.multiband.shown_view(rows)
    return patch_grid.mosaic(rows.reshape(-1, *rows.shape[2:]), 1 + num_generated)
