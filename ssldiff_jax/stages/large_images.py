"""Large images against their regions, by every network of features."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.evaluation import distances, estimate, extractors, images, similarity, stored
from ssldiff_jax.stages import protocol, stage

_LEAST = 3
"""Of features on a side: what is left without one must have a covariance."""


def run(
    context: stage.Context, pairs: list[similarity.Pair], by: protocol.Networks
) -> dict[str, Any]:
    """By extractor: the Fréchet distance of `crops` (Graikos et al. 2024) with that of real crops
    against real ones at other places, `crops_floor`; and of `whole` images by networks that take
    any size. Figures of fewer than three crops or images are left out."""
    return {name: _of(context, pairs, network) for name, network in by.items()}


def _of(context, pairs: list[similarity.Pair], network: extractors.Extractor) -> dict[str, Any]:
    side = context.config.data.crops.patch_px
    through = stored.Format(context.config.evaluate.jpeg_quality).through
    cut = lambda images_, moved: np.concatenate(
        [network(through(images.cut_cells(image, side, moved))) for image in images_]
    )
    drawn, real = [pair.image for pair in pairs], [pair.reference for pair in pairs]
    published = protocol.reference(context, protocol.extraction_of(context, network))
    # Crops of the same places would be compared pixel by pixel: drawn ones lie between real ones.
    crops, of_real = cut(drawn, side // 2), cut(real, 0)
    number = min(len(crops), len(of_real), estimate.BLOCKS)
    sides = [published.moments] if published else distances.blocks_of(of_real, number)
    found: dict[str, Any] = {}
    if min(len(crops), len(of_real)) >= _LEAST:
        found["crops"] = _told(
            distances.frechet_estimate(
                distances.blocks_of(crops, number), sides, paired=not published
            )
        )
        found["crops_floor"] = distances.frechet_distance(cut(real, side // 2), of_real)
    if network.name in extractors.ANY_SIZE and len(pairs) >= _LEAST:
        found["whole"] = _told(_whole(network, through, drawn, real))
    return found


def _whole(
    network: extractors.Batched,
    through: Callable[[stored.Patches], stored.Patches],
    drawn: list[np.ndarray],
    real: list[np.ndarray],
) -> estimate.Estimate:
    """Whole images, each shrunk to what the network takes."""
    alone = dataclasses.replace(network, batch_size=1)
    of = lambda found: np.concatenate([alone(through(image[None])) for image in found])
    sides: list[Float[np.ndarray, "N D"]] = [of(drawn), of(real)]
    return distances.frechet_estimate(*(distances.blocks_of(side) for side in sides), paired=True)


def _told(found: estimate.Estimate) -> dict[str, Any]:
    return dataclasses.asdict(found)
