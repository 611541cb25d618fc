"""Tool `variations`: a real patch or region regenerated from its embeddings."""

from typing import Any

from ssldiff_jax.core import rng
from ssldiff_jax.generation import generator, references, user_images
from ssldiff_jax.runs import artifacts, stage
from ssldiff_jax.runs.config import tools as tools_config
from ssldiff_jax.slides import pyramid, shown


def run(context: stage.Context) -> dict[str, Any]:
    """Write `real.png`, `patches.png` (rows: a real patch, samples of it) and, of a region,
    `region_N.png` and `.tif`: its whole cells regenerated."""
    config, folder = context.config, context.folder("variations")
    section = config.variations
    if not section.image:
        context.artifacts.require_references("variations.image")
    model = generator.Generator.of_run(context.artifacts, context.mesh)
    if section.image:
        reference = _of_image(model, section)
    else:
        reference = context.artifacts.with_references.references(model.embed)[0]
    multiband = config.data.reading.multiband
    pyramid.write_png(folder / "real.png", shown.rgb(reference.image, multiband))
    page = references.page(model, reference, section.num_patches, section.num_generated)
    pyramid.write_png(folder / "patches.png", page)
    height, width = reference.image.shape[:2]
    # A page of patches has no neighbours to be rendered with, and one cell is a patch.
    is_region = reference.kind == "region" and max(height, width) > model.patch_px
    regions = section.num_regions if is_region else 0
    scale = pyramid.Scale(model.mpp, config.sample.output.quality, bands=multiband)
    for i in range(regions):
        seed = rng.seed_of(config.seed, "variations/region", i)
        planned = references.plan_of(model, reference, seed=seed)
        generated = model.render(planned).image
        pyramid.write_png(folder / f"region_{i}.png", multiband.shown_view(generated))
        pyramid.write_pyramid(folder / f"region_{i}.tif", generated, scale)
    return {"image": section.image, "height": height, "width": width, "regions": regions}


def _of_image(
    model: generator.Generator, section: tools_config.VariationsSection
) -> artifacts.Reference:
    """The image that the config names.

    Raises SlideError for a file that is no image, ValueError for one without a whole patch.
    """
    image = user_images.UserImage.open(model.reading_data, section.image, mpp=section.mpp)
    # Whole cells, so that a grid spans the image.
    pixels = image.read(0, 0, *(size - size % model.patch_px for size in image.size))
    return artifacts.Reference(pixels, "region", model.embed(pixels))
