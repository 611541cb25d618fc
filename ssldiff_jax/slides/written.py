"""What writers are given: pixels in memory or in a file, and what files say of them."""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import multiband
from ssldiff_jax.slides.ground import Georeference
from ssldiff_jax.slides.raw_image import RawImage

STRIP = 1024
"""Rows that are copied at a time."""

Pixels: TypeAlias = arrays.Pixels | RawImage


@dataclasses.dataclass(frozen=True)
class Scale:
    """Microns per pixel, JPEG quality, where the image lies, if anywhere, the version of NGFF that
    OME-Zarr is written in, and the bands, where they are others than red, green and blue."""

    mpp: float
    quality: int = 90
    georeference: Georeference | None = None
    ngff: Literal["0.4", "0.5"] = "0.5"
    bands: multiband.MultibandConfig = multiband.NO_BANDS

    def __post_init__(self):
        if not (np.isfinite(self.mpp) and self.mpp > 0):
            raise ValueError(f"expected mpp above 0, got mpp={self.mpp}")


def size(pixels: Pixels) -> tuple[int, int]:
    """Height and width."""
    if isinstance(pixels, RawImage):
        return pixels.height, pixels.width
    return pixels.shape[:2]


def rows(pixels: Pixels, bands: multiband.MultibandConfig) -> Callable[[int, int], arrays.Pixels]:
    """A function of the first row and a number of rows. Raises ValueError for other pixels than
    `bands` says."""
    require(pixels, bands)
    if isinstance(pixels, RawImage):
        return pixels.rows
    return lambda top, count: pixels[top : top + count]


def shown_rows(
    pixels: Pixels, bands: multiband.MultibandConfig
) -> Callable[[int, int], arrays.ImageUint8]:
    """The same, of the bands that are shown as red, green and blue."""
    of_all, view = rows(pixels, bands), bands.shown_view
    return lambda top, count: view(of_all(top, count))


def require(pixels: Pixels | np.ndarray, bands: multiband.MultibandConfig) -> None:
    """Raise ValueError for other pixels than `bands` says."""
    if isinstance(pixels, RawImage):
        shape, dtype = (pixels.height, pixels.width, pixels.num_bands), pixels.dtype
    else:
        shape, dtype = pixels.shape, pixels.dtype
    if dtype != bands.dtype or len(shape) != 3 or shape[2] != bands.count or 0 in shape:
        raise ValueError(
            f"expected an image of shape (H, W, {bands.count}) and {bands.dtype}, got {shape} and "
            f"{dtype}"
        )
