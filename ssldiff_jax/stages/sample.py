"""Stage `sample`: large images from held-out regions, and patches drawn alone."""

from typing import Any

import numpy as np

from ssldiff_jax.evaluation import images
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import generator, parts, runner

_DRAWS = 4


def run(context: runner.Context) -> dict[str, Any]:
    """Write for every region `image_N.png` and `.tif`, `patches_N.png` (each cell drawn alone),
    and `variations.png` (rows: a real patch, four draws of it)."""
    config, folder = context.config, context.folder("sample")
    model = generator.Generator.of_run(context)
    facts = []
    for i, reference in enumerate(parts.regions(context)):
        seed = config.seed + i
        if config.sample.conditioning == "dense":
            drawn = model.redraw(reference, seed=seed)
        else:
            drawn = model.generate(model.embed(reference), seed=seed)
        pyramid.write_png(folder / f"image_{i}.png", drawn.image)
        pyramid.write_pyramid(folder / f"image_{i}.tif", drawn.image, mpp=config.data.patch_mpp)
        grid = model.embed(reference)
        patches = model.sample_patches(grid.reshape(-1, grid.shape[-1]), seed=seed)
        pyramid.write_png(folder / f"patches_{i}.png", _mosaic(patches, grid.shape[1]))
        height, width = drawn.image.shape[:2]
        facts.append(
            {
                "height": height,
                "width": width,
                "unet_forwards": drawn.unet_forwards,
                "decoder_calls": drawn.decoder_calls,
                "seconds": round(drawn.seconds, 2),
            }
        )
    pyramid.write_png(folder / "variations.png", _variations(context, model))
    return {"large_images": facts}


def _variations(context: runner.Context, model: generator.Generator) -> np.ndarray:
    count = context.config.sample.num_variations
    cells = images.cut_cells(parts.regions(context)[0], model.patch_px)
    chosen = cells[np.linspace(0, len(cells) - 1, count).astype(int)]
    embedding = np.repeat(model.encoder(chosen), _DRAWS, axis=0)
    drawn = model.sample_patches(embedding, seed=context.config.seed + 100)
    drawn = drawn.reshape(count, _DRAWS, *chosen.shape[1:])
    rows = np.concatenate([chosen[:, None], drawn], axis=1)
    return _mosaic(rows.reshape(-1, *chosen.shape[1:]), 1 + _DRAWS)


def _mosaic(patches: np.ndarray, cols: int) -> np.ndarray:
    n, side = len(patches), patches.shape[1]
    rows = patches.reshape(n // cols, cols, side, side, 3).swapaxes(1, 2)
    return rows.reshape(n // cols * side, cols * side, 3)
