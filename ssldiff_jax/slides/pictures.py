"""Images that a run makes and reads again: a PNG for people, and a TIFF of all bands where there
are others than red, green and blue."""

import pathlib

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import geotiff, pyramid, shown, written
from ssldiff_jax.slides import multiband as multiband_lib


def formats(bands: multiband_lib.MultibandConfig) -> tuple[str, ...]:
    """Of pyramid.FORMATS, what `read` needs."""
    return ("png", "tif") if bands.is_used else ("png",)


def write(folder: pathlib.Path, name: str, pixels: arrays.Pixels, scale: written.Scale) -> None:
    """Write `name.png`, after all bands in `name.tif` where there are others than RGB."""
    if scale.bands.is_used:
        geotiff.write_bands(folder / f"{name}.tif", pixels, scale)
    pyramid.write_png(folder / f"{name}.png", shown.rgb(pixels, scale.bands))


def read(folder: pathlib.Path, name: str, bands: multiband_lib.MultibandConfig) -> arrays.Pixels:
    """The pixels that were written, all bands.

    Raises SlideError, which names the file, for other bands, or where there is no such file.
    """
    if not bands.is_used:
        return pyramid.read_image(folder / f"{name}.png")
    path = folder / f"{name}.tif"
    pixels = geotiff.read_bands(path)
    if pixels.shape[2] != bands.count or pixels.dtype != bands.dtype:
        raise geotiff.SlideError(
            f"expected {bands.count} bands ({', '.join(bands.names)}) of {bands.dtype} in {path}, "
            f"got {pixels.shape[2]} of {pixels.dtype}"
        )
    return pixels
