"""Stage `evaluate`: the figures of the large images, by the encoder and by the judge."""

from typing import Any

import numpy as np
from PIL import Image

from ssldiff_jax.core import files
from ssldiff_jax.encoders import encoder
from ssldiff_jax.evaluation import distances, images, similarity
from ssldiff_jax.stages import parts, runner


def run(context: runner.Context) -> dict[str, Any]:
    """Write `results.json`, and the similarity of every cell as `similarity_N.npy`."""
    side, folder = context.config.data.crops.patch_px, context.folder("evaluate")
    pairs = [
        similarity.Pair(_png(context, f"image_{i}"), reference)
        for i, reference in enumerate(parts.regions(context))
    ]
    patches = [_png(context, f"patches_{i}") for i in range(len(pairs))]
    model = parts.load_encoder(context)
    results = _features(pairs, patches, model, side) | _pixels(context, pairs, side)
    results["judge"] = _features(pairs, patches, parts.load_encoder(context, "judge"), side)
    for i, pair in enumerate(pairs):
        cosines = np.diagonal(similarity.cell_similarity(pair, model, side))
        rows = pair.reference.shape[0] // side
        np.save(folder / f"similarity_{i}.npy", cosines.reshape(rows, -1))
    files.write_json(folder / "results.json", results)
    return results


def _png(context: runner.Context, name: str) -> np.ndarray:
    return np.asarray(Image.open(context.folder("sample") / f"{name}.png"))


def _features(pairs, patches, model: encoder.Encoder, side: int) -> dict[str, Any]:
    found = similarity.fidelity(pairs, model, side)
    pool = lambda pages: encoder.unit(
        model(np.concatenate([images.cut_cells(p, side) for p in pages]))
    )
    real = pool([p.reference for p in pairs])
    return found | {"patch_fd": distances.frechet_distance(real, pool(patches))}


def _pixels(context: runner.Context, pairs, side: int) -> dict[str, Any]:
    layouts = [images.layout_correlation(p.image, p.reference, side) for p in pairs]
    factor = context.config.downsample_factor
    seam = lambda image: images.seam_energy(image, side, factor)
    return {
        "layout_correlation": {
            key: float(np.mean([layout[key] for layout in layouts])) for key in layouts[0]
        },
        "seam_energy": float(np.mean([seam(p.image) for p in pairs])),
        "seam_energy_real": float(np.mean([seam(p.reference) for p in pairs])),
    }
