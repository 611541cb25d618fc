"""Whether a large image has its reference's values in every band, and its vegetation."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation.metrics import structure


def vegetation_index(land: Float[np.ndarray, "H W 4"]) -> Float[np.ndarray, "H W"]:
    """(infrared − red) / (infrared + red) of red, green, blue and infrared (Rouse 1974), −1…1; 0
    where both are 0. What lies below 0, as dark water may in reflectances, is 0: near a sum of 0
    the index of a pixel would outweigh all others."""
    red, infrared = (np.maximum(land[..., band].astype(np.float64), 0) for band in (0, 3))
    total = infrared + red
    return np.divide(infrared - red, total, out=np.zeros_like(total), where=total > 0)


def vegetation(
    of_land: Callable[[arrays.Pixels], Float[np.ndarray, "H W 4"]], side: int
) -> structure.Measure:
    """Correlation of the vegetation index with the reference's, of its means over `cells` of
    `side` px, and over `squares` of 8 px. `of_land` gives red, green, blue and infrared."""

    def see(pixels: arrays.Pixels) -> structure.Map:
        return vegetation_index(of_land(pixels))[..., None]

    def places(a: structure.Map, b: structure.Map) -> Sequence[structure.Map]:
        pooled = ([structure.pool(each[..., 0], px) for each in (a, b)] for px in sizes)
        return [structure.products(*both) for both in pooled]

    sizes = (side, structure.PX)
    return structure.Measure(
        see,
        1,
        places,
        {
            "cells": lambda sums: structure.pearson(sums[..., :6]),
            "squares": lambda sums: structure.pearson(sums[..., 6:]),
        },
    )


def bands(names: Sequence[str]) -> structure.Measure:
    """Correlation with the reference of every band by its name, of means over squares of 8 px."""

    def places(a: structure.Map, b: structure.Map) -> Sequence[structure.Map]:
        return [structure.products(a[..., k], b[..., k]) for k in range(len(names))]

    def of_band(sums: np.ndarray, k: int) -> np.ndarray:
        return structure.pearson(sums[..., 6 * k : 6 * (k + 1)])

    figures = {name: functools.partial(of_band, k=k) for k, name in enumerate(names)}
    see = lambda pixels: structure.pool(pixels, structure.PX)
    return structure.Measure(see, structure.PX, places, figures)
