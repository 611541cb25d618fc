"""Images that a user names beside the slides of a run, read as the run reads its slides."""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import rasterio
from rasterio.enums import ColorInterp

from ssldiff_jax.core import arrays, pixel_units
from ssldiff_jax.data import config as data_config
from ssldiff_jax.formats import fingerprints
from ssldiff_jax.sampler import conditions
from ssldiff_jax.slides import content, ground, ngff, pyramid, remote, tiff
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class UserImage:
    """A slide, a raster or an image at the scale of a run's patches.

    Attributes:
        size: height and width, px.
        read: its pixels, as they are needed.
        place: where they lie on the ground, if anywhere.
        least: side of a cell, px: the least that can be read of it.
        native_mpp: µm per pixel of the file.
    """

    size: tuple[int, int]
    read: conditions.ReadFn
    place: ground.Georeference | None
    least: int
    native_mpp: float

    @classmethod
    def open(cls, data: data_config.DataConfig, path: str, *, mpp: float = 0.0) -> "UserImage":
        """Open a path or an address by `data.reading`.

        Its microns per pixel are `mpp`, else `data.mpp`, else what the file says, else those of
        patches. Raises SlideError for a file that is no image or has no one scale, ValueError for
        one without a whole patch.
        """
        slide = open_slide(data, path, mpp=mpp)
        scales = map(pixel_units.per_pixel, (slide.mpp, data.patch_mpp))
        _LOG.info("%s has %s, read at %s", path, *scales)
        size, px = slide.shape_at(data.patch_mpp), data.crops.patch_px
        if min(size) < px:
            raise ValueError(
                f"{path} must hold a cell of {px} px at {pixel_units.per_pixel(data.patch_mpp)}, "
                f"got {size[0]} × {size[1]} px"
            )
        read = functools.partial(slide.read_region, mpp=data.patch_mpp)
        place = pyramid.georeference(slide.path, data.patch_mpp, native_mpp=slide.mpp)
        return cls(size, read, place, px, slide.mpp)

    def part(self, top: int, left: int, height: int, width: int) -> "UserImage":
        """A region of it, at the place where that lies. Raises ValueError where it does not lie
        inside, or holds no cell."""
        if min(height, width) < self.least:
            raise ValueError(
                f"generate.region, or generate.area, must hold a cell of {self.least} px at every "
                f"scale that is generated, got {height} × {width} px"
            )
        if top + height > self.size[0] or left + width > self.size[1]:
            raise ValueError(
                f"generate.region must lie inside of the reference's {self.size[0]} × "
                f"{self.size[1]} px, got {height} × {width} px at ({top}, {left})"
            )
        read = lambda row, col, rows, cols: self.read(top + row, left + col, rows, cols)
        place = self.place and self.place.moved(top, left)
        return dataclasses.replace(self, size=(height, width), read=read, place=place)

    @property
    def pixels(self) -> arrays.ImageUint8:
        """All of them, in memory."""
        return self.read(0, 0, *self.size)


def open_slide(data: data_config.DataConfig, path: str, *, mpp: float = 0.0) -> slide_lib.Slide:
    """The slide of a path or an address. Raises SlideError."""
    # 0 stands for not said.
    options = {"mpp": mpp or data.mpp or None, "otherwise_mpp": data.patch_mpp}
    if remote.is_remote(path):
        return remote.open_remote(path, open_copy=_open_file, reading=data.reading, **options)
    return _open_file(pathlib.Path(path).expanduser(), reading=data.reading, **options)


def _open_file(
    file: pathlib.Path, *, reading: reading_lib.ReadingConfig, **options: Any
) -> slide_lib.Slide:
    of_file = reading.of_picture(file)
    if of_file != reading:
        _LOG.info("%s is a picture: config.data.reading.bands, low and high are of rasters", file)
    return slide_lib.open_slide(file, reading=of_file, **options)


def read_pixels(data: data_config.DataConfig, path: str) -> arrays.ImageUint8:
    """All stored pixels of an image by `data.reading`, whatever their scale. Raises SlideError."""
    slide = open_slide(data, path, mpp=data.patch_mpp)
    try:
        return slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    finally:
        slide.close()


def read_mask(path: str) -> arrays.ImageUint8:
    """The stored pixels of an image that is no picture of anything: no reading applies, no scale.

    Raises SlideError for a file that is no image, has transparent pixels, or holds 0 and 1 for
    black and white.
    """
    if remote.is_remote(path):
        slide = remote.open_remote(path, mpp=1.0)
    else:
        slide = slide_lib.open_slide(pathlib.Path(path).expanduser(), mpp=1.0)
    try:
        mask = slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
        _fill_missing(mask, slide.path, path)
    finally:
        slide.close()
    # Read as grey levels, all of it would be black.
    if mask.max() == 1:
        raise slide_lib.SlideError(
            f"expected a mask of 0 (black) to 255 (white), got 0…1 in {path}"
        )
    return mask


def _fill_missing(image_uint8: arrays.ImageUint8, file: pathlib.Path, path: str) -> None:
    """What is missing in a slide is white: in a mask, it has the value that stands for no data."""
    if not file.is_file():
        return  # nor has OME-Zarr
    try:
        raster = rasterio.open(file)
    except rasterio.errors.RasterioIOError:
        return  # scanners' formats have no such pixels
    with raster:
        # GDAL's mask: 0 by the file's no-data value or alpha, 255 where there are pixels.
        missing = raster.dataset_mask() < 255
        if not missing.any():
            return
        if not _stores_no_data(raster, file):
            raise slide_lib.SlideError(
                f"expected a mask of black and white alone, got transparent pixels in {path}"
            )
        # Back to the number that was stored: reading had made it white.
        image_uint8[missing] = int(raster.nodata)


def _stores_no_data(raster: rasterio.DatasetReader, file: pathlib.Path) -> bool:
    """Whether a missing pixel has one value of 8 bits, at the place where it is read."""
    if raster.driver != "GTiff" or raster.dtypes[0] != "uint8" or raster.nodata is None:
        return False
    layout = tiff.layout(file)
    is_upright = layout.page == 0 and layout.orientation == 1
    return is_upright and raster.colorinterp[0] != ColorInterp.palette


def fingerprint(path: str, key: str = "") -> Any:
    """A fingerprint of a file or an address; None for no path.
    `key` is what names it.

    Raises WeightsError for a file that is not there.
    """
    if remote.is_remote(path):
        return remote.fingerprint(path)
    own = fingerprints.of_path(path, key)
    if own and ngff.is_folder(folder := pathlib.Path(path).expanduser()):
        return {"content": content.digest(folder)}
    beside = content.files_of(pathlib.Path(path).expanduser())[1:] if own else ()
    return own | {"beside": [fingerprints.of_path(str(p)) for p in beside]} if beside else own
