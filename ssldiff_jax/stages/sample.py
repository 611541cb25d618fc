"""Stage `sample`: large images from held-out regions, and patches drawn alone."""

import logging
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation.metrics import pixels
from ssldiff_jax.generation import generator, render
from ssldiff_jax.generation import plan as drawing_lib
from ssldiff_jax.runs import artifacts, stage
from ssldiff_jax.sampler import conditions
from ssldiff_jax.slides import pyramid

_LOG = logging.getLogger(__name__)

_DRAWS = 4


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write for every region `image_N.png` and the other formats, for every reference
    `patches_N.png` (each cell drawn alone), and `variations.png` (rows: a real patch, four draws
    of it). A dry run only tells what the regions take."""
    config, folder = context.config, context.folder("sample")
    model = generator.Generator.of_run(context)
    references = artifacts.references(context, model.embed)
    jobs = [
        _job(context, model, reference, i)
        for i, reference in enumerate(references)
        if reference.kind == "region"
    ]
    if config.sample.dry_run:
        for planned in jobs:
            _LOG.info("%s would be %s", planned.name, planned.cost(timed=True))
        return None
    facts = [large.run() for large in jobs]
    for i, reference in enumerate(references):
        grid = reference.grid
        patches = model.sample_patches(grid.reshape(-1, grid.shape[-1]), seed=config.seed + i)
        pyramid.write_png(folder / f"patches_{i}.png", pixels.mosaic(patches, grid.shape[1]))
    variations = page(model, references[0], config.sample.num_variations, _DRAWS)
    pyramid.write_png(folder / "variations.png", variations)
    return {"large_images": facts}


def _job(context: stage.Context, model, reference: artifacts.Reference, number: int) -> render.Job:
    # PNG is what the evaluation reads.
    section = context.config.sample.output
    formats = ("png", *(name for name in section.formats if name != "png"))
    drawing = drawing_of(model, reference, seed=context.config.seed + number)
    scale = pyramid.Scale(context.config.data.patch_mpp, section.quality)
    return render.Job(model, drawing, context.folder("sample"), f"image_{number}", formats, scale)


def drawing_of(
    model: generator.Generator, reference: artifacts.Reference, *, seed: int
) -> drawing_lib.Drawing:
    """A region to draw again, conditioned as the config says."""
    if model.config.sample.conditioning == "dense":
        read = conditions.array_reader(reference.image)
        return model.from_reference(read, reference.image.shape[:2], seed=seed)
    return model.from_grid(reference.grid, seed=seed)


def page(
    model: generator.Generator, reference: artifacts.Reference, count: int, draws: int
) -> arrays.ImageUint8:
    """Some cells of a reference, each beside draws from its embedding."""
    cells = pixels.cut_cells(reference.image, model.patch_px)
    chosen = np.linspace(0, len(cells) - 1, min(count, len(cells))).astype(int)
    embedding = np.repeat(reference.grid.reshape(len(cells), -1)[chosen], draws, axis=0)
    drawn = model.sample_patches(embedding, seed=model.config.seed + 100)
    drawn = drawn.reshape(len(chosen), draws, *cells.shape[1:])
    rows = np.concatenate([cells[chosen][:, None], drawn], axis=1)
    return pixels.mosaic(rows.reshape(-1, *cells.shape[1:]), 1 + draws)
