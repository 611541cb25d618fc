"""The readers behind a slide: OpenSlide for scanners' files, Pillow for plain images, GDAL for
georeferenced rasters."""

import contextlib
import pathlib
import threading
from collections.abc import Iterator

import numpy as np
import openslide
from PIL import Image

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import colour, pixels, protocol, raster, reading, scale
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

_pillow_limit_lock = threading.Lock()


class OpenSlideBackend:
    """A whole-slide image that OpenSlide recognises; transparent parts read as white."""

    def __init__(self, path: pathlib.Path, config: reading.ReadingConfig):
        self._path = path
        try:
            self._handle = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise SlideError.because(path, "a readable slide", error) from error
        self.level_shapes = tuple((h, w) for w, h in self._handle.level_dimensions)
        self.pixel_size = scale.of_openslide(self._handle.properties)
        try:
            self._to_srgb = self._conversion() if config.colour == "srgb" else None
            protocol.probe(self)
        except SlideError:
            self.close()
            raise

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.ImageUint8:
        """Return (height, width, 3) level pixels. Raises SlideError where the file is damaged."""
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

    def __init__(self, image_uint8: arrays.ImageUint8, pixel_size: protocol.PixelSize):
        self._image_uint8, self.pixel_size = image_uint8, pixel_size
        self.level_shapes = (image_uint8.shape[:2],)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.ImageUint8:
        """Return (height, width, 3) pixels; there is one level only."""
        return self._image_uint8[top : top + height, left : left + width]

    def close(self) -> None:
        self._image_uint8 = np.empty((0, 0, 3), np.uint8)


class PillowBackend(PixelBackend):
    """A plain image, decoded whole into memory (at most `MAX_DECODED_PIXELS`)."""

    def __init__(self, path: pathlib.Path, config: reading.ReadingConfig):
        try:
            with _without_pillow_limit(), Image.open(path) as image:
                _check_decodable(image)
                pixel_size = scale.of_tiff(getattr(image, "tag_v2", {}))
                image.load()
                profile = image.info.get("icc_profile") if config.colour == "srgb" else None
                to_srgb = colour.ToSrgb.from_bytes(profile) if profile else None
                super().__init__(pixels.to_rgb(image, to_srgb), pixel_size)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types
            raise SlideError.because(path, "a readable slide or image", error) from error


def open_backend(path: pathlib.Path, config: reading.ReadingConfig) -> Backend:
    """Open a GeoTIFF with GDAL, else with OpenSlide what it recognises, else with Pillow.

    A GeoTIFF is not OpenSlide's, which takes a fourth band for transparency. Raises SlideError.
    """
    if raster.is_geotiff(path):
        return raster.RasterBackend(path, config)
    if config.bands or config.is_scaled:
        raise SlideError(
            "expected a georeferenced raster for config.data.reading.bands, low and high, got "
            f"{path}"
        )
    if openslide.OpenSlide.detect_format(str(path)) is not None:
        return OpenSlideBackend(path, config)
    return PillowBackend(path, config)


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
