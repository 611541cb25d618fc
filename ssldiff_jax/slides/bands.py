"""All bands of a georeferenced raster, where three are not enough."""

import pathlib

import numpy as np
import rasterio
from jaxtyping import UInt8
from rasterio import windows

from ssldiff_jax.slides import resample
from ssldiff_jax.slides.protocol import SlideError


def read(
    path: pathlib.Path, top: int, left: int, height: int, width: int, *, factor: float = 1.0
) -> UInt8[np.ndarray, "H W C"]:
    """Every band of a window; the numbers are pixels of which each is `factor` native ones a side.

    Raises SlideError for a file that is no raster of 8 bits, and for a window beyond its border.
    """
    try:
        with rasterio.open(path) as file:
            if set(file.dtypes) != {"uint8"}:
                raise SlideError(f"expected bands of 8 bits, got {file.dtypes[0]} in {path}")
            first, last = (top * factor, left * factor), (top + height, left + width)
            over = [b * factor - n for b, n in zip(last, file.shape, strict=True)]
            if min(first) < 0 or max(over) > factor - 1 + 1e-6:
                raise SlideError(
                    f"expected a window inside {path} ({file.height} × {file.width} px), got "
                    f"{height} × {width} at ({top}, {left}), {factor:g} px each"
                )
            rows, columns = (
                resample.plan_axis(start, count, factor=factor, size=size, extent=size)
                for start, count, size in zip((top, left), (height, width), file.shape, strict=True)
            )
            # Not averaged by GDAL, which takes a fourth band for transparency.
            window = windows.Window.from_slices(
                (rows.start, rows.stop), (columns.start, columns.stop)
            )
            found = np.moveaxis(file.read(window=window), 0, -1)
    except rasterio.errors.RasterioError as error:
        raise SlideError.because(path, "a raster", error) from error
    return resample.apply(np.ascontiguousarray(found), rows, columns)
