"""Stage `sample`: large images from held-out regions, and patches drawn alone."""

from typing import Any

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation import images
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import generator, parts, runner

_DRAWS = 4


def run(context: runner.Context) -> dict[str, Any]:
    """Write for every region `image_N.png` and `.tif`, for every reference `patches_N.png` (each
    cell drawn alone), and `variations.png` (rows: a real patch, four draws of it)."""
    config, folder = context.config, context.folder("sample")
    model = generator.Generator.of_run(context)
    references, facts = parts.references(context, model.embed), []
    for i, reference in enumerate(references):
        seed, grid = config.seed + i, reference.grid
        if reference.kind == "region":
            drawn = draw(model, reference, seed=seed)
            pyramid.write_png(folder / f"image_{i}.png", drawn.image)
            pyramid.write_pyramid(folder / f"image_{i}.tif", drawn.image, mpp=config.data.patch_mpp)
            facts.append(_cost(drawn))
        patches = model.sample_patches(grid.reshape(-1, grid.shape[-1]), seed=seed)
        pyramid.write_png(folder / f"patches_{i}.png", images.mosaic(patches, grid.shape[1]))
    variations = page(model, references[0], config.sample.num_variations, _DRAWS)
    pyramid.write_png(folder / "variations.png", variations)
    return {"large_images": facts}


def draw(
    model: generator.Generator, reference: parts.Reference, *, seed: int
) -> generator.LargeImage:
    """A region drawn again, conditioned as the config says."""
    if model.config.sample.conditioning == "dense":
        return model.redraw(reference.image, seed=seed)
    return model.generate(reference.grid, seed=seed)


def page(
    model: generator.Generator, reference: parts.Reference, count: int, draws: int
) -> arrays.ImageUint8:
    """Some cells of a reference, each beside draws from its embedding."""
    cells = images.cut_cells(reference.image, model.patch_px)
    chosen = np.linspace(0, len(cells) - 1, min(count, len(cells))).astype(int)
    embedding = np.repeat(reference.grid.reshape(len(cells), -1)[chosen], draws, axis=0)
    drawn = model.sample_patches(embedding, seed=model.config.seed + 100)
    drawn = drawn.reshape(len(chosen), draws, *cells.shape[1:])
    rows = np.concatenate([cells[chosen][:, None], drawn], axis=1)
    return images.mosaic(rows.reshape(-1, *cells.shape[1:]), 1 + draws)


def _cost(drawn: generator.LargeImage) -> dict[str, Any]:
    height, width = drawn.image.shape[:2]
    return {
        "height": height,
        "width": width,
        "unet_forwards": drawn.unet_forwards,
        "decoder_calls": drawn.decoder_calls,
        "seconds": round(drawn.seconds, 2),
    }
