"""What pictures and tissue see of a slide, whatever its bands: red, green and blue."""

import numpy as np
from jaxtyping import UInt8

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides import pixels as pixels_lib
from ssldiff_jax.slides import slide as slides


def read(
    slide: slides.Slide, top: int, left: int, height: int, width: int, *, mpp: float
) -> arrays.ImageUint8:
    """`slide.read_region` as RGB of 8 bits: the shown bands."""
    return rgb(slide.read_region(top, left, height, width, mpp=mpp), slide.multiband)


def rgb(
    pixels: arrays.Pixels, multiband: multiband_lib.MultibandConfig
) -> UInt8[np.ndarray, "H W 3"]:
    """The shown bands; white where there is no data, as RGB has it; RGB as it is."""
    image_uint8 = multiband.shown_view(pixels)
    if multiband.is_used:
        if image_uint8 is pixels:
            image_uint8 = pixels.copy()
        image_uint8[(pixels == multiband_lib.MISSING).all(axis=-1)] = pixels_lib.WHITE
    return image_uint8
