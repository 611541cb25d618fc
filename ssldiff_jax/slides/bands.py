"""All bands of a georeferenced raster, where three are not enough."""

import pathlib

import numpy as np
import rasterio
from jaxtyping import UInt8
from rasterio import windows

from ssldiff_jax.slides.backends import SlideError


def read(
    path: pathlib.Path, top: int, left: int, height: int, width: int
) -> UInt8[np.ndarray, "H W C"]:
    """Every band of a window, native pixels.

    Raises SlideError for a file that is no raster of 8 bits, and for a window beyond its border.
    """
    try:
        with rasterio.open(path) as file:
            if set(file.dtypes) != {"uint8"}:
                raise SlideError(f"expected bands of 8 bits, got {file.dtypes[0]} in {path}")
            if top < 0 or left < 0 or top + height > file.height or left + width > file.width:
                raise SlideError(
                    f"expected a window inside {path} ({file.height} × {file.width} px), got "
                    f"{height} × {width} at ({top}, {left})"
                )
            found = file.read(window=windows.Window(left, top, width, height))
    except rasterio.errors.RasterioError as error:
        raise SlideError.because(path, "a raster", error) from error
    return np.ascontiguousarray(np.moveaxis(found, 0, -1))
