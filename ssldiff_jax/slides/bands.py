"""All bands of a georeferenced raster, where three are not enough."""

import pathlib

import numpy as np
import rasterio
from jaxtyping import UInt8
from rasterio import windows

from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import resample, samples
from ssldiff_jax.slides.protocol import SlideError


def read(
    path: pathlib.Path,
    top: int,
    left: int,
    height: int,
    width: int,
    *,
    factor: float = 1.0,
    reading: reading_lib.ReadingConfig = reading_lib.AS_STORED,
) -> UInt8[np.ndarray, "H W C"]:
    """Every band of a window; the numbers are pixels of which each is `factor` native ones a side.

    Red, green and blue come first where names of bands or `reading.bands` say that they are in
    another order; values are brought to 8 bits by its range.
    Raises SlideError for a file that is no raster of 8 bits, and for a window beyond its border.
    """
    try:
        with rasterio.open(path) as file:
            if set(file.dtypes) != {"uint8"} and not reading.is_scaled:
                raise SlideError(
                    f"expected bands of 8 bits, got {file.dtypes[0]} in {path}: pass "
                    "--config.data.reading.low and --config.data.reading.high"
                )
            first, last = (top * factor, left * factor), (top + height, left + width)
            # The last pixel may hang over the border while one native pixel of it is there.
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
            values = file.read(_order(path, file, reading), window=window)
    except rasterio.errors.RasterioError as error:
        raise SlideError.because(path, "a raster", error) from error
    pixels = np.ascontiguousarray(np.moveaxis(reading.to_8_bits(values), 0, -1))
    return resample.apply(pixels, rows, columns)


def _order(
    path: pathlib.Path, file: rasterio.DatasetReader, reading: reading_lib.ReadingConfig
) -> list[int]:
    """All bands: the colours, then the others as they are stored.

    Raises SlideError for a stack whose colours are not its first bands: which of the others is
    infrared cannot be known.
    """
    named = samples.named_bands(path, file)
    shown = list(reading.bands or named)
    if file.count > 4 and len(shown) == 3 and set(shown) != {1, 2, 3}:
        raise SlideError(
            f"expected red, green and blue in bands 1…3 and infrared in band 4 of {path}, got "
            f"{file.count} bands with colours in {tuple(shown)}: write a file of these four bands"
        )
    colours = list(reading.bands if set(reading.bands) == {1, 2, 3} else named)
    return colours + [n for n in range(1, file.count + 1) if n not in colours]
