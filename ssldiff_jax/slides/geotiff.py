"""TIFFs by GDAL: cloud-optimised ones, and those of other bands than red, green and blue."""

import math
import pathlib
import warnings
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import multiband, whole_file, written
from ssldiff_jax.slides.protocol import SlideError
from ssldiff_jax.slides.written import Pixels, Scale

_TILE, _COG_TILE = 256, 512  # px
_FULL_COLOUR = 90  # JPEG of this quality and above keeps the resolution of colour
_COLOURS = ("red", "green", "blue")


def write_cog(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a Cloud-Optimised GeoTIFF with the coordinate system and transform of `scale`, or,
    without one, those of pixels of `mpp` from the top left corner and resolution tags.

    RGB is JPEG. Other bands are as `write_bands` has them.
    """
    where, metres = scale.georeference, scale.mpp * 1e-6
    transform = where.transform if where else (metres, 0, 0, 0, -metres, 0)
    _write(path, pixels, scale, transform, _COG_TILE)


def write_bands(path: pathlib.Path, pixels: Pixels, scale: Scale) -> None:
    """Write a tiled pyramidal BigTIFF of the bands of `scale`, without loss (deflate): their names,
    0 as the value of no data, which overviews leave out of their means, and, where the bands have a
    range, scale and offset that give the values back that records stand for.

    Raises ValueError for other pixels and OSError, naming the path, where the file cannot be
    written; then nothing is left behind.
    """
    where = scale.georeference
    _write(path, pixels, scale, where.transform if where else None, _TILE)


def read_bands(path: str | pathlib.Path) -> arrays.Pixels:
    """All bands of a TIFF as they are stored, of 8 or 16 bits, whatever its size. Scale and offset
    are not applied. Raises SlideError for what is no such file."""
    import rasterio

    try:
        # Lying nowhere is no fault.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as file:
                if not set(file.dtypes) <= {"uint8", "uint16"}:
                    raise SlideError(
                        f"expected bands of 8 or 16 bits, got {file.dtypes[0]} in {path}"
                    )
                return np.ascontiguousarray(np.moveaxis(file.read(), 0, -1))
    except rasterio.errors.RasterioError as error:
        raise SlideError.because(path, "a TIFF of bands", error.__cause__ or error) from error


def _write(path: pathlib.Path, pixels: Pixels, scale: Scale, transform: Any, tile_px: int) -> None:
    import rasterio.shutil

    options = _profile(scale.bands, tile_px)
    if scale.bands.is_used:
        compression = {"compress": "DEFLATE", "predictor": 2}
    else:
        photometric = "RGB" if scale.quality >= _FULL_COLOUR else "YCBCR"
        compression = {
            "compress": "JPEG", "jpeg_quality": scale.quality, "photometric": photometric,
        }  # fmt: skip
    with whole_file.replacing(path) as temporary, whole_file.beside(temporary) as plain:
        _write_plain(plain, pixels, scale, transform, options)
        # Not by GDAL's COG driver, which halves the resolution of colour at every quality.
        # A JPEG_QUALITY_OVERVIEW of the user's environment would go before jpeg_quality.
        with rasterio.Env(JPEG_QUALITY_OVERVIEW=scale.quality):
            rasterio.shutil.copy(
                plain, temporary, driver="GTiff", copy_src_overviews=True, **(options | compression)
            )


def _profile(bands: multiband.MultibandConfig, tile_px: int) -> dict[str, Any]:
    """How a file is laid out, and what its first bands are."""
    is_rgb = not bands.is_used or _called(bands)[:3] == _COLOURS
    # Bands beyond colours would be transparency.
    beyond = {"alpha": "unspecified"} if is_rgb and bands.count > 3 else {}
    return {
        "tiled": True, "blockxsize": tile_px, "blockysize": tile_px, "bigtiff": "YES",
        "interleave": "pixel", "photometric": "RGB" if is_rgb else "MINISBLACK", **beyond,
    }  # fmt: skip


def _called(bands: multiband.MultibandConfig) -> tuple[str, ...]:
    return tuple(name.lower() for name in bands.names)


def _write_plain(
    path: pathlib.Path, pixels: Pixels, scale: Scale, transform: Any, options: dict[str, Any]
) -> None:
    """The same, uncompressed, with its overviews."""
    import rasterio
    from rasterio import windows as raster_windows
    from rasterio.enums import Resampling

    # Said of every image without a place, which is what most are.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)

    bands, where = scale.bands, scale.georeference
    source, (height, width) = written.rows(pixels, bands), written.size(pixels)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": bands.count,
        "dtype": bands.dtype.name, "crs": where.crs if where else None,
        "transform": rasterio.Affine(*transform) if transform else None, **options,
        **({"nodata": multiband.MISSING} if bands.is_used else {}),
    }  # fmt: skip
    # Until the coarsest fits one tile.
    halvings = max(math.ceil(math.log2(max(height, width) / options["blockxsize"])), 0)
    with rasterio.open(path, "w", **profile) as file:
        if bands.is_used:
            _name(file, bands)
        for top in range(0, height, written.STRIP):
            strip = source(top, written.STRIP)
            window = raster_windows.Window(0, top, width, len(strip))
            file.write(np.moveaxis(strip, -1, 0), window=window)
        if not where:
            per_cm = 1e4 / scale.mpp
            file.update_tags(
                TIFFTAG_RESOLUTIONUNIT="3 (pixels/cm)",
                TIFFTAG_XRESOLUTION=f"{per_cm:.9g}",
                TIFFTAG_YRESOLUTION=f"{per_cm:.9g}",
            )
        if halvings:
            file.build_overviews([2**n for n in range(1, halvings + 1)], Resampling.average)


def _name(file: Any, bands: multiband.MultibandConfig) -> None:
    """Say what the bands of an open file are."""
    from rasterio.enums import ColorInterp

    file.descriptions = bands.names
    called = _called(bands)
    if set(_COLOURS) <= set(called):
        # What is infrared says its name: older GDAL has no such mark.
        kinds = (name if name in _COLOURS else "undefined" for name in called)
        file.colorinterp = [ColorInterp[kind] for kind in kinds]
    if bands.is_scaled:
        file.scales, file.offsets = bands.scales
