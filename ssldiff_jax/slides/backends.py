"""The two readers behind a slide: OpenSlide for pyramids, Pillow for plain images."""

import contextlib
import math
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import openslide
from PIL import Image

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import pixels

MAX_DECODED_PIXELS = 2**30
"""Largest plain image, 32768² px: it is decoded whole, at 3 bytes a pixel (twice at the peak)."""

_TIFF_XRESOLUTION, _TIFF_RESOLUTION_UNIT, _TIFF_CENTIMETRE = 282, 296, 3
_TIFF_GEO_KEYS = 34735
_PROBE = 16  # px, side of the regions that prove a slide readable
_pillow_limit_lock = threading.Lock()


class SlideError(ValueError):
    """A file that cannot be used as a slide; the message is one line and names the file."""

    @classmethod
    def because(cls, path: pathlib.Path, expected: str, error: Exception) -> "SlideError":
        """Word a library's error in one line."""
        detail = " ".join(str(error).split()) or type(error).__name__
        return cls(f"expected {expected}, got {path}: {detail}")


@runtime_checkable
class Backend(Protocol):
    """Pixels of every stored level; level 0 is the finest. Reads are always inside the level."""

    mpp: float | None
    level_shapes: tuple[tuple[int, int], ...]

    def read(
        self, level: int, top: int, left: int, height: int, width: int
    ) -> arrays.ImageUint8: ...

    def close(self) -> None: ...


class OpenSlideBackend:
    """A whole-slide image that OpenSlide recognises; transparent parts read as white."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        try:
            self._handle = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise SlideError.because(path, "a readable slide", error) from error
        self.level_shapes = tuple((h, w) for w, h in self._handle.level_dimensions)
        self.mpp = _openslide_mpp(self._handle.properties)
        try:
            self._probe()
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
        return pixels.composite_on_white(rgba)

    def close(self) -> None:
        self._handle.close()

    def _probe(self) -> None:
        """Read a little everywhere: a truncated slide often opens and fails only later."""
        height, width = self.level_shapes[0]
        h, w = min(_PROBE, height), min(_PROBE, width)
        bottom, right = height - h, width - w
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        for top, left in [*corners, (bottom // 2, right // 2)]:
            self.read(0, top, left, h, w)
        height, width = self.level_shapes[-1]
        self.read(len(self.level_shapes) - 1, 0, 0, min(_PROBE, height), min(_PROBE, width))


class PixelBackend:
    """Pixels that are in memory already: one level."""

    def __init__(self, image_uint8: arrays.ImageUint8, mpp: float | None):
        self._image_uint8, self.mpp = image_uint8, mpp
        self.level_shapes = (image_uint8.shape[:2],)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.ImageUint8:
        """Return (height, width, 3) pixels; there is one level only."""
        return self._image_uint8[top : top + height, left : left + width]

    def close(self) -> None:
        self._image_uint8 = np.empty((0, 0, 3), np.uint8)


class PillowBackend(PixelBackend):
    """A plain image, decoded whole into memory (at most `MAX_DECODED_PIXELS`)."""

    def __init__(self, path: pathlib.Path):
        try:
            with _without_pillow_limit(), Image.open(path) as image:
                _check_decodable(image)
                mpp = _tiff_mpp(image)
                image.load()
                if _has_geo_keys(image):
                    # Its fourth band is what a sensor saw (infrared), whatever the file calls it.
                    super().__init__(pixels.first_bands(image), mpp)
                else:
                    super().__init__(pixels.to_rgb(image), mpp)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types
            raise SlideError.because(path, "a readable slide or image", error) from error


def open_backend(path: pathlib.Path) -> Backend:
    """Open with OpenSlide when it recognises the file, else with Pillow. Raises SlideError.

    A GeoTIFF is Pillow's: OpenSlide takes a fourth band for transparency.
    """
    if openslide.OpenSlide.detect_format(str(path)) is not None and not _is_geotiff(path):
        return OpenSlideBackend(path)
    return PillowBackend(path)


def _is_geotiff(path: pathlib.Path) -> bool:
    try:
        with _without_pillow_limit(), Image.open(path) as image:
            return _has_geo_keys(image)
    except Exception:  # what Pillow cannot open is no GeoTIFF for us
        return False


def _has_geo_keys(image: Image.Image) -> bool:
    return _TIFF_GEO_KEYS in getattr(image, "tag_v2", {})


def _openslide_mpp(properties: Mapping[str, str]) -> float | None:
    try:
        values = [float(properties[name]) for name in ("openslide.mpp-x", "openslide.mpp-y")]
    except (KeyError, ValueError):
        return None
    mpp = sum(values) / 2
    if properties.get("openslide.vendor") == "generic-tiff":
        return mpp if _is_microscopic(mpp) else None
    return mpp if math.isfinite(mpp) and mpp > 0 else None


def _tiff_mpp(image: Image.Image) -> float | None:
    """Trust centimetres only: a resolution in inches is nearly always a printer's."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_RESOLUTION_UNIT) != _TIFF_CENTIMETRE or not tags.get(_TIFF_XRESOLUTION):
        return None
    mpp = 1e4 / float(tags[_TIFF_XRESOLUTION])
    return mpp if _is_microscopic(mpp) else None


def _is_microscopic(mpp: float) -> bool:
    return 0.05 <= mpp <= 10


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
