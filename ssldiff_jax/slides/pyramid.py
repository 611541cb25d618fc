"""Write large images: a pyramid every viewer opens, or a PNG. Both appear whole or not at all."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

import numpy as np
import pyvips
from PIL import Image

from ssldiff_jax.core import arrays

_TILE = 256  # px


def write_pyramid(
    path: str | pathlib.Path, image_uint8: arrays.ImageUint8, *, mpp: float, quality: int = 90
) -> None:
    """Write a tiled pyramidal BigTIFF (JPEG) that OpenSlide reads back with its mpp.

    `image_uint8` is (H, W, 3); a C-contiguous memmap is streamed, never held in memory. `mpp` is
    microns per pixel (`open_slide` believes 0.05…10 of a TIFF, other values must be passed to it
    again); `quality` is JPEG's, 1…100. Raises ValueError for another kind of array and OSError,
    naming the path, where the file cannot be written; then nothing is left behind.
    """
    _check_image(image_uint8)
    if not (np.isfinite(mpp) and mpp > 0):
        raise ValueError(f"expected mpp above 0, got mpp={mpp}")
    height, width, bands = image_uint8.shape
    flat = np.ascontiguousarray(image_uint8).reshape(-1)
    source = pyvips.Image.new_from_memory(flat.data, width, height, bands, "uchar")
    with _replacing(pathlib.Path(path)) as temporary:
        source.copy(interpretation="srgb").tiffsave(
            str(temporary),
            tile=True,
            tile_width=_TILE,
            tile_height=_TILE,
            pyramid=True,
            bigtiff=True,
            compression="jpeg",
            Q=quality,
            resunit="cm",
            xres=1000 / mpp,  # vips counts pixels per millimetre, whatever the unit it stores
            yres=1000 / mpp,
        )


def write_png(path: str | pathlib.Path, image_uint8: arrays.ImageUint8) -> None:
    """Write (H, W, 3) uint8 as PNG. Raises as `write_pyramid` does."""
    _check_image(image_uint8)
    with _replacing(pathlib.Path(path)) as temporary:
        Image.fromarray(np.asarray(image_uint8)).save(temporary, format="PNG")


def _check_image(image_uint8: np.ndarray) -> None:
    shape, dtype = image_uint8.shape, image_uint8.dtype
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"expected an image of shape (H, W, 3) and uint8, got {shape} and {dtype}")


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Lend a name beside `path` and move it there once the block is through."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, pyvips.Error) as error:
        detail = " ".join(str(error).split())
        raise OSError(f"expected to write {path}, got: {detail}") from error
    finally:
        temporary.unlink(missing_ok=True)
