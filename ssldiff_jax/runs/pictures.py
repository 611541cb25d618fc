"""Images of a run in its work directory: as PNG for people, and with all their bands."""

import pathlib

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides import pyramid


def formats(multiband: multiband_lib.MultibandConfig) -> tuple[str, ...]:
    """Of pyramid.FORMATS, what `read` needs: PNG, which shows three bands, and TIFF of all where
    there are others."""
    return ("png", "tif") if multiband.is_used else ("png",)


def write(
    folder: pathlib.Path,
    name: str,
    pixels: arrays.Pixels,
    multiband: multiband_lib.MultibandConfig,
) -> None:
    """Write `name.png`, after all bands in `name.tif` where there are others than RGB."""
    if multiband.is_used:
        pyramid.write_bands(folder / f"{name}.tif", pixels, multiband)
    pyramid.write_png(folder / f"{name}.png", multiband.shown_view(pixels))


def read(
    folder: pathlib.Path, name: str, multiband: multiband_lib.MultibandConfig
) -> arrays.Pixels:
    """The pixels that were written, all bands."""
    if multiband.is_used:
        return pyramid.read_bands(folder / f"{name}.tif")
    return pyramid.read_image(folder / f"{name}.png")
