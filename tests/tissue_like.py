"""Pixels that tissue is found in, without a slide."""

import numpy as np
from jaxtyping import UInt8


def pixels(seed: int) -> UInt8[np.ndarray, "768 768 3"]:
    """Pink to purple, another for each seed."""
    y, x = np.mgrid[0:768, 0:768] / 768
    waves = [200 + 30 * np.sin(9 * x), 120 + 40 * np.sin(7 * y), 170 + 30 * x * y]
    noise = np.random.default_rng(seed).normal(0, 18, (96, 96, 1)).repeat(8, 0).repeat(8, 1)
    return (np.stack(waves, axis=-1) + noise).clip(0, 255).astype(np.uint8)
