"""Held-out regions as the stage `patches` cuts them: a PNG for people and, of other bands than
red, green and blue, a TIFF of all of them beside it."""

import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays, patch_grid
from ssldiff_jax.data import plan
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides import pyramid, shown

_TILE = 256  # px


def write_all(
    folder: pathlib.Path,
    pixels: Iterable[list[arrays.Pixels]],
    references: Sequence[plan.Reference],
    multiband: multiband_lib.MultibandConfig,
    scale: float = 1,
) -> None:
    """Write references, each of its cells, at a scale of records."""
    for number, (reference, cells) in enumerate(zip(references, pixels, strict=True)):
        picture = patch_grid.mosaic(np.stack(cells), reference.cols)
        write(folder, plan.split_at(f"region_{number}", scale), picture, multiband)


def about(reference: plan.Reference, names: Mapping[int, str]) -> dict[str, Any]:
    """A reference as regions.json has it; `names` of slides by number."""
    first, kind = reference.cells[0], reference.kind
    px = first.height
    return {
        "kind": kind,
        "slide": first.slide,
        "slide_name": names[first.slide if kind == "region" else 0],
        "top": first.top,
        "left": first.left,
        "height": reference.rows * px,
        "width": reference.cols * px,
        "cells": [[cell.slide, cell.row] for cell in reference.cells],
    }


def write(
    folder: pathlib.Path,
    name: str,
    pixels: arrays.Pixels,
    multiband: multiband_lib.MultibandConfig,
) -> None:
    """Write `name.png`, after `name.tif` where there are other bands than RGB."""
    if multiband.is_used:
        write_bands(folder / f"{name}.tif", pixels, multiband)
    pyramid.write_png(folder / f"{name}.png", shown.rgb(pixels, multiband))


def read(
    folder: pathlib.Path, name: str, multiband: multiband_lib.MultibandConfig
) -> arrays.Pixels:
    """The pixels that `write` was given.

    Raises ValueError for a file of other bands.
    """
    if multiband.is_used:
        return read_bands(folder / f"{name}.tif", multiband)
    return pyramid.read_image(folder / f"{name}.png")


def write_bands(
    path: pathlib.Path, pixels: arrays.Pixels, multiband: multiband_lib.MultibandConfig
) -> None:
    """Write all bands by their names, without loss; where all are 0 there is no data."""
    import rasterio

    height, width, count = pixels.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": count,
        "dtype": str(pixels.dtype), "nodata": multiband_lib.MISSING, "tiled": True,
        "blockxsize": _TILE, "blockysize": _TILE, "compress": "deflate", "predictor": 2,
        "photometric": "MINISBLACK",
    }  # fmt: skip

    def fill(temporary: pathlib.Path) -> None:
        with _unplaced(), rasterio.open(temporary, "w", **profile) as file:
            file.write(np.moveaxis(pixels, -1, 0))
            file.descriptions = multiband.names

    atomic.write_atomic(path, fill)


def read_bands(path: pathlib.Path, multiband: multiband_lib.MultibandConfig) -> arrays.Pixels:
    """All bands of a file as they are stored.

    Raises ValueError, which names the file, for other bands than the config names, or no TIFF.
    """
    import rasterio

    expected = f"{multiband.count} bands ({', '.join(multiband.names)}) of {multiband.dtype}"
    try:
        with _unplaced(), rasterio.open(path) as file:
            values = file.read()
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"expected a TIFF of {expected}, got {path}: {reason:.200}") from error
    if values.dtype != multiband.dtype or len(values) != multiband.count:
        raise ValueError(f"expected {expected} in {path}, got {len(values)} of {values.dtype}")
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def _unplaced() -> warnings.catch_warnings:
    """Silence about an image that lies nowhere, as a region of a slide does."""
    from rasterio import errors

    return warnings.catch_warnings(action="ignore", category=errors.NotGeoreferencedWarning)
