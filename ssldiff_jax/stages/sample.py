"""Stage `sample`: large images from held-out regions, and patches drawn alone."""

from typing import Any

import numpy as np

from ssldiff_jax.evaluation import images
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import generator, parts, runner

_DRAWS = 4


def run(context: runner.Context) -> dict[str, Any]:
    """Write for every region `image_N.png` and `.tif`, for every reference `patches_N.png` (each
    cell drawn alone), and `variations.png` (rows: a real patch, four draws of it)."""
    config, folder = context.config, context.folder("sample")
    model = generator.Generator.of_run(context)
    references, facts = parts.references(context), []
    for i, reference in enumerate(references):
        seed = config.seed + i
        grid = model.embed(reference.image) if reference.grid is None else reference.grid
        if reference.kind == "region":
            if config.sample.conditioning == "dense":
                drawn = model.redraw(reference.image, seed=seed)
            else:
                drawn = model.generate(grid, seed=seed)
            pyramid.write_png(folder / f"image_{i}.png", drawn.image)
            pyramid.write_pyramid(folder / f"image_{i}.tif", drawn.image, mpp=config.data.patch_mpp)
            facts.append(_cost(drawn))
        patches = model.sample_patches(grid.reshape(-1, grid.shape[-1]), seed=seed)
        pyramid.write_png(folder / f"patches_{i}.png", images.mosaic(patches, grid.shape[1]))
        if i == 0:
            page = _variations(model, reference.image, grid)
            pyramid.write_png(folder / "variations.png", page)
    return {"large_images": facts}


def _cost(drawn: generator.LargeImage) -> dict[str, Any]:
    height, width = drawn.image.shape[:2]
    return {
        "height": height,
        "width": width,
        "unet_forwards": drawn.unet_forwards,
        "decoder_calls": drawn.decoder_calls,
        "seconds": round(drawn.seconds, 2),
    }


def _variations(model: generator.Generator, reference: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Some cells of a reference, each beside four draws from its embedding."""
    cells = images.cut_cells(reference, model.patch_px)
    chosen = np.linspace(0, len(cells) - 1, model.config.sample.num_variations).astype(int)
    embedding = np.repeat(grid.reshape(len(cells), -1)[chosen], _DRAWS, axis=0)
    drawn = model.sample_patches(embedding, seed=model.config.seed + 100)
    drawn = drawn.reshape(len(chosen), _DRAWS, *cells.shape[1:])
    rows = np.concatenate([cells[chosen][:, None], drawn], axis=1)
    return images.mosaic(rows.reshape(-1, *cells.shape[1:]), 1 + _DRAWS)
