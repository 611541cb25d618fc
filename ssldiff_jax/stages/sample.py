"""Stage `sample`: large images from held-out regions, and single patches."""

import logging
import pathlib
from typing import Any

from ssldiff_jax.core import patch_grid, rng
from ssldiff_jax.generation import generator, render
from ssldiff_jax.generation import references as references_lib
from ssldiff_jax.runs import amounts, artifacts, stage
from ssldiff_jax.slides import pyramid

_LOG = logging.getLogger(__name__)


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write for every region `image_N.png` and the other formats, for every reference
    `patches_N.png` (each cell generated singly), and `variations.png` (rows: a real patch, four
    samples of it). A dry run only says what the regions cost."""
    config, folder = context.config, context.folder("sample")
    model = generator.Generator.of_run(context.artifacts, context.mesh)
    references = context.artifacts.references(model.embed)
    # Planned together: a config that does not fit a region is refused before any is rendered.
    jobs = [
        _render(model, folder, reference, i)
        for i, reference in enumerate(references)
        if reference.kind == "region"
    ]
    if config.sample.dry_run:
        for planned in jobs:
            _LOG.info("dry run: %s would be %s", planned.name, planned.cost(timed=True))
        return None
    facts = [large.run() for large in jobs]
    for i, reference in enumerate(references):
        grid = reference.grid
        patches = model.sample_patches(
            grid.reshape(-1, grid.shape[-1]), seed=rng.seed_of(config.seed, "sample/patches", i)
        )
        pyramid.write_png(folder / f"patches_{i}.png", patch_grid.mosaic(patches, grid.shape[1]))
    variations = references_lib.page(
        model, references[0], config.sample.num_variations, amounts.VARIATIONS_EACH
    )
    pyramid.write_png(folder / "variations.png", variations)
    return {"large_images": facts}


def _render(
    model: generator.Generator, folder: pathlib.Path, reference: artifacts.Reference, number: int
) -> render.LargeImageRender:
    # PNG is what the evaluation reads.
    config, section = model.config, model.config.sample.output
    formats = ("png", *(name for name in section.formats if name != "png"))
    seed = rng.seed_of(config.seed, "sample/image", number)
    image_plan = references_lib.plan_of(model, reference, seed=seed)
    scale = pyramid.Scale(config.data.patch_mpp, section.quality)
    name = f"image_{number}"
    return render.LargeImageRender(model.renderer, image_plan, folder, name, formats, scale)
