"""The readers behind a slide: OpenSlide for scanners' files, Pillow for plain images, GDAL for
rasters and for images whose numbers the other two take for something else."""

import contextlib
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import openslide
from PIL import Image

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import (
    colour,
    levels,
    picked,
    pixels,
    protocol,
    raster,
    reading,
    scale,
    tiff,
    turned,
    zarr_image,
)
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides.protocol import Backend, SlideError

__all__ = [
    "Backend",
    "OpenSlideBackend",
    "PillowBackend",
    "PixelBackend",
    "SlideError",
    "open_backend",
]

MAX_DECODED_PIXELS = 2**30
"""Largest plain image, 32768² px: it is decoded whole, at 3 bytes a pixel (twice at the peak)."""

_GENERIC = "generic-tiff"  # OpenSlide's word for a tiled TIFF of no scanner
# Of the formats that OpenSlide reads, those whose tiled pages it takes for levels unseen.
_ANY_PAGE_IS_A_LEVEL = (_GENERIC, "aperio")
# The limit is one for all threads: two would restore what the other has set.
_pillow_limit_lock = threading.Lock()


class OpenSlideBackend:
    """A whole-slide image that OpenSlide recognises; transparent parts read as white."""

    levels_cover_all = False
    says_missing = False
    multiband = multiband_lib.NO_BANDS

    def __init__(self, path: pathlib.Path, config: reading.ReadingConfig):
        self._path = path
        try:
            self._handle = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise SlideError.because(path, "a readable slide", error) from error
        self.level_shapes = tuple((h, w) for w, h in self._handle.level_dimensions)
        self._levels = list(range(len(self.level_shapes)))
        self.pixel_size = scale.of_openslide(self._handle.properties)
        try:
            self._to_srgb = self._conversion() if config.colour == "srgb" else None
            if self._handle.properties.get("openslide.vendor") in _ANY_PAGE_IS_A_LEVEL:
                self._levels = levels.agreeing(path, self)
                self.level_shapes = tuple(self.level_shapes[i] for i in self._levels)
            protocol.probe(self)
        except SlideError:
            self.close()
            raise

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.ImageUint8:
        """Return (height, width, 3) level pixels. Raises SlideError where the file is damaged."""
        level = self._levels[level]
        scale = self._handle.level_downsamples[level]
        corner = (round(left * scale), round(top * scale))  # OpenSlide wants level-0 pixels
        try:
            rgba = self._handle.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise SlideError.because(self._path, "a readable slide", error) from error
        return pixels.composite_on_white(self._to_srgb(rgba) if self._to_srgb else rgba)

    def close(self) -> None:
        self._handle.close()

    def _conversion(self) -> colour.ToSrgb | None:
        try:
            profile = self._handle.color_profile
            return colour.ToSrgb(profile) if profile else None
        except colour.ERRORS as error:
            raise SlideError.because(self._path, "a readable ICC profile", error) from error


class PixelBackend:
    """Pixels that are in memory already: one level."""

    levels_cover_all = False
    says_missing = False

    def __init__(
        self,
        image: arrays.Pixels,
        pixel_size: protocol.PixelSize,
        multiband: multiband_lib.MultibandConfig = multiband_lib.NO_BANDS,
    ):
        self._image, self.pixel_size, self.multiband = image, pixel_size, multiband
        self.level_shapes = (image.shape[:2],)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.Pixels:
        """Return (height, width, bands) pixels; there is one level only."""
        return self._image[top : top + height, left : left + width]

    def close(self) -> None:
        self._image = self._image[:0, :0].copy()


class PillowBackend(PixelBackend):
    """A plain image, decoded whole into memory (at most `MAX_DECODED_PIXELS`)."""

    def __init__(self, path: pathlib.Path, config: reading.ReadingConfig):
        try:
            with _without_pillow_limit(), Image.open(path) as image:
                _check_decodable(image)
                pixels.require_still(image)
                pixel_size = scale.of_tiff(getattr(image, "tag_v2", {}))
                # Asked before loading, after which Pillow has forgotten its tiles.
                is_deep = any(";16" in str(tile.args) for tile in image.tile)
                image.load()
                if is_deep:
                    pixels.require_used(image)
                profile = image.info.get("icc_profile") if config.colour == "srgb" else None
                to_srgb = colour.ToSrgb.from_bytes(profile) if profile else None
                super().__init__(pixels.to_rgb(image, to_srgb), pixel_size)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types
            raise SlideError.because(path, "a readable slide or image", error) from error


def open_backend(path: pathlib.Path, config: reading.ReadingConfig) -> Backend:
    """Open a folder as OME-Zarr, a GeoTIFF with GDAL, else with OpenSlide what it recognises, else
    with Pillow.

    A GeoTIFF is not OpenSlide's, which takes a fourth band for transparency. Other TIFFs of no
    scanner are GDAL's where they are not plain (`tiff.Layout`). Raises SlideError.
    """
    if path.is_dir():
        return zarr_image.ZarrBackend(path, config)
    if raster.is_geotiff(path):
        tags = _upright_tags(path)
        backend = raster.RasterBackend(path, config)
        if backend.pixel_size.absent:  # it lies nowhere on the earth
            size = scale.of_tiff(tags)
            no_metres = protocol.PixelSize(absent=protocol.NO_METRES, is_ground=True)
            backend.pixel_size = no_metres if size.absent else size
        return backend
    vendor = openslide.OpenSlide.detect_format(str(path))
    if vendor in (None, _GENERIC):
        if tiff.is_tiff(path):
            return _open_tiff(path, config, vendor)
        is_of_raster = config.is_of_rasters or config.multiband.is_used
        if raster.is_jpeg2000(path) or (is_of_raster and raster.is_deep_png(path)):
            return raster.open_image(path, config)
    if config.bands or config.is_scaled:
        raise SlideError(
            "expected a georeferenced raster for config.data.reading.bands, low and high, or "
            f"another TIFF or JPEG 2000, got {path}"
        )
    colours = picked.places(path, config.multiband)
    backend = OpenSlideBackend(path, config) if vendor else PillowBackend(path, config)
    return picked.PickedBackend(backend, config.multiband, colours) if colours else backend


def _open_tiff(path: pathlib.Path, config: reading.ReadingConfig, vendor: str | None) -> Backend:
    """A TIFF of no scanner: by the reader that takes its pixels for what they are."""
    layout = tiff.layout(path)
    is_of_raster = config.is_of_rasters or config.multiband.is_used
    if layout.is_plain and not is_of_raster:
        return OpenSlideBackend(path, config) if vendor else PillowBackend(path, config)
    backend = raster.RasterBackend(path, config, layout)
    backend.pixel_size = scale.of_tiff(layout.tags)
    if layout.orientation == 1:
        return backend
    return turned.TurnedBackend(backend, layout.orientation)


def _upright_tags(path: pathlib.Path) -> Mapping[int, Any]:
    """Tags of the scale of a georeferenced raster.

    Raises SlideError for one that has several images, or is turned.
    """
    layout = tiff.layout(path)
    if layout.page or layout.orientation != 1:
        raise SlideError(
            f"expected a georeferenced raster whose image is its first page, upright, got page "
            f"{layout.page} with orientation {layout.orientation} in {path}"
        )
    return layout.tags


def _check_decodable(image: Image.Image) -> None:
    if image.width * image.height > MAX_DECODED_PIXELS:
        raise ValueError(
            f"a plain image is decoded whole in memory, expected at most {MAX_DECODED_PIXELS} px, "
            f"got {image.width} × {image.height}; convert it to a tiled pyramidal TIFF"
        )


@contextlib.contextmanager
def _without_pillow_limit() -> Iterator[None]:
    """Lift Pillow's process-wide pixel limit while one image is decoded; ours holds instead."""
    with _pillow_limit_lock:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
