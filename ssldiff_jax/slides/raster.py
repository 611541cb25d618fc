"""Rasters of any size and depth, georeferenced or not, read by windows."""

import base64
import contextlib
import dataclasses
import pathlib
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import rasterio
from jaxtyping import Bool, Shaped
from PIL import Image
from rasterio import windows
from rasterio.enums import MaskFlags

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import (
    choosing,
    colour,
    ground,
    levels,
    pixels,
    protocol,
    reading,
    samples,
    tiff,
)

# Images that lie nowhere are read here on purpose.
warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)

_GEO_KEYS = 34735  # GeoKeyDirectoryTag
_STRIP_VALUES = 3 * 2**22  # read at once: 100 MB as float64
# Signature of a JP2 file, and the first marker of a bare codestream.
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_PNG = b"\x89PNG\r\n\x1a\n"
_IMAGE = tiff.Layout(0, (), 1, is_plain=False, names_colours=False, alpha="straight", tags={})
_LOOK, _LOOK_SIDE = 512, 4096  # values looked at a side, and the px they are taken from


class RasterBackend:
    """A GeoTIFF, or an image that GDAL reads: one or three bands as RGB, or those that the config
    names; white, or 0 of those, where it says that it has no data.

    That is: nodata in all chosen bands, NaN in one, zero in a mask of the whole dataset or in a
    band that is called alpha and looks like a mask. Any other fourth band of a GeoTIFF is what a
    sensor saw (infrared), whatever the file calls it: no transparency. `layout` is of an image that
    lies nowhere.
    """

    def __init__(
        self,
        path: pathlib.Path,
        config: reading.ReadingConfig,
        layout: tiff.Layout | None = None,
    ):
        self._path, self._config, self._lock = path, config, threading.Lock()
        self.multiband = config.multiband
        self._is_image = layout is not None
        with _as_slide_error(path), contextlib.ExitStack() as on_error:
            # Name and number of the overview by level; None is the image itself.
            self._levels = _pages(path, layout)
            file = _open(*self._levels[0])
            self._files = {0: file}
            on_error.callback(self.close)
            self.level_shapes = (file.shape, *(_shape(*level) for level in self._levels[1:]))
            overviews = _overviews(path, file) if len(self._levels) == 1 else {}
            # Pages are levels as scanners make them.
            self.levels_cover_all = bool(overviews)
            self._levels += [(self._levels[0][0], number) for number in overviews]
            self.level_shapes += tuple(overviews.values())
            self._samples = samples.of(path, file, config, layout)
            self._bands = self._samples.bands
            self._nodata = [file.nodatavals[band - 1] for band in self._bands]
            flags = file.mask_flag_enums[self._bands[0] - 1]
            # Not masks that GDAL makes of nodata (no flag of a dataset) or of alpha: these are
            # looked at here.
            self._has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
            says = self._has_mask or self._samples.alpha > 0 or None not in self._nodata
            says = says or file.dtypes[self._bands[0] - 1].startswith("float")
            self.says_missing = self.multiband.is_used and says
            self._samples = dataclasses.replace(self._samples, says_missing=self.says_missing)
            self.pixel_size = ground.pixel_size(file)
            self._to_srgb = _to_srgb(file) if config.colour == "srgb" else None
            self._check_depth(file)
            self._keep_levels()
            protocol.probe(self)
            on_error.pop_all()

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.Pixels:
        """Return (height, width, bands) level pixels. Raises SlideError for a damaged file."""
        out = np.empty((height, width, self.multiband.count), self.multiband.dtype)
        rows = max(1, _STRIP_VALUES // (width * self.multiband.count))
        with self._lock, _as_slide_error(self._path):  # GDAL reads a file in one thread only
            file = self._file(level)
            for row in range(0, height, rows):
                strip = out[row : row + rows]
                strip[:] = self._pixels(file, windows.Window(left, top + row, width, len(strip)))
        return out

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _file(self, level: int) -> rasterio.DatasetReader:
        """The dataset of a level, opened when it is first read."""
        if level not in self._files and not self._files[0].closed:
            self._files[level] = _open(*self._levels[level])
        return self._files.get(level, self._files[0])  # a closed one says so when it is read

    def _pixels(self, file: rasterio.DatasetReader, window: windows.Window) -> arrays.Pixels:
        values = file.read(self._bands, window=window)
        missing = self._missing(values)
        if self._has_mask:
            missing |= file.read_masks(self._bands[0], window=window) == 0
        out = self._samples.decoded(values, missing, self._config)
        if self._to_srgb:
            out = np.array(self._to_srgb(Image.fromarray(out)))
        if self._samples.alpha:
            alpha = file.read(self._samples.alpha, window=window)
            if self._samples.alpha_kind == "mask":
                missing |= alpha == 0
            else:
                out = self._samples.on_white(out, alpha, self._config)
        out[missing] = self.multiband.fill
        return out

    def _missing(self, values: Shaped[np.ndarray, "C H W"]) -> Bool[np.ndarray, "H W"]:
        missing = np.zeros(values.shape[1:], bool)
        if None not in self._nodata:
            pairs = zip(values, self._nodata, strict=True)
            with np.errstate(over="ignore"):  # a nodata value may lie outside what the bands hold
                missing |= np.all([band == nodata for band, nodata in pairs], axis=0)
        if values.dtype.kind == "f":
            missing |= np.isnan(values).any(axis=0)
        if self._samples.table is not None:
            missing |= self._samples.is_transparent(values)
        return missing

    def _check_depth(self, file: rasterio.DatasetReader) -> None:
        """Raise SlideError for values that the config does not bring to 8 bits."""
        dtype = file.dtypes[self._bands[0] - 1]
        if "complex" in dtype:
            raise protocol.SlideError(
                f"expected bands of real numbers, got {dtype} in {self._path}"
            )
        if self.multiband.is_used:
            choosing.require_fits(self._path, dtype, self.multiband, self._look)
            return
        if dtype == "uint8" or self._config.is_scaled or self._samples.table is not None:
            return
        if self._is_image and dtype == "uint16":
            values = self._look()
            if values.size and pixels.uses_sixteen_bits(values):
                self._samples = dataclasses.replace(self._samples, top=pixels.SIXTEEN_BITS)
                return
        raise protocol.SlideError(
            f"expected bands of 8 bits, got {dtype} with {self._value_range()} in {self._path}: "
            "pass --config.data.reading.low and --config.data.reading.high, the values that become "
            "0 and 255"
        )

    def _keep_levels(self) -> None:
        """Of an image, leave out pages that have the shape of a level and other pixels."""
        if self._is_image:
            numbers = levels.agreeing(self._path, self, may_be=self._has_kind_of_image)
            self._levels = [self._levels[i] for i in numbers]
            self._files = {numbers.index(i): f for i, f in self._files.items() if i in numbers}
            self.level_shapes = tuple(self.level_shapes[i] for i in numbers)

    def _has_kind_of_image(self, level: int) -> bool:
        """Whether numbers of a level mean what those of the image do."""
        kinds = [(f.count, f.dtypes, samples.table(f)) for f in map(self._file, (0, level))]
        return kinds[0] == kinds[1]

    def _value_range(self) -> str:
        return choosing.span(self._look())

    def _look(self) -> Shaped[np.ndarray, "C N"]:
        """Some of the coarsest level's values, around its centre."""
        file = self._file(len(self.level_shapes) - 1)
        height, width = (min(n, _LOOK_SIDE) for n in file.shape)
        top, left = (file.height - height) // 2, (file.width - width) // 2
        values = file.read(
            self._bands,
            window=windows.Window(left, top, width, height),
            out_shape=(len(self._bands), min(height, _LOOK), min(width, _LOOK)),
        )
        return values[:, ~self._missing(values)]


def is_geotiff(path: pathlib.Path) -> bool:
    """Whether the first image of a TIFF has geo keys; False for whatever is no TIFF."""
    try:
        with path.open("rb") as file:
            return _GEO_KEYS in _first_tags(file)
    except (OSError, OverflowError, ValueError, KeyError, struct.error):
        return False


def is_jpeg2000(path: pathlib.Path) -> bool:
    """Whether a file begins as a JP2 or a bare JPEG 2000 code stream does."""
    with path.open("rb") as file:
        return file.read(12).startswith(_JPEG_2000)


def is_deep_png(path: pathlib.Path) -> bool:
    """Whether a file begins as a PNG of 16 bits does."""
    with path.open("rb") as file:
        head = file.read(25)
    return head.startswith(_PNG) and head[24:] == b"\x10"


def open_image(path: pathlib.Path, config: reading.ReadingConfig) -> RasterBackend:
    """A JPEG 2000 or a deep PNG, which lies somewhere or is an image. Raises SlideError."""
    with _as_slide_error(path), _open(path) as file:
        lies_nowhere = file.crs is None
    return RasterBackend(path, config, _IMAGE if lies_nowhere else None)


def _first_tags(file: BinaryIO) -> set[int]:
    """The tags of the first directory, of a classic or a big TIFF, without their values."""
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}[header[:2]]
    (version,) = struct.unpack_from(f"{order}H", header, 2)
    # Of a classic TIFF and a BigTIFF: where the first directory's offset is, the width of its
    # count, and the bytes of an entry.
    offset, count, entry = {42: ("4xI", "H", 12), 43: ("8xQ", "Q", 20)}[version]
    file.seek(*struct.unpack_from(order + offset, header))
    (number,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
    # A damaged BigTIFF may claim 2⁶⁴ of them.
    entries = file.read(entry * min(number, 2**16))
    return {struct.unpack_from(f"{order}H", entries, at)[0] for at in range(0, len(entries), entry)}


def _open(path: pathlib.Path | str, overview: int | None = None) -> rasterio.DatasetReader:
    which = {} if overview is None else {"overview_level": overview}
    driver = "GTiff" if isinstance(path, str) else _driver(path)
    return rasterio.open(path, driver=driver, **which)


def _driver(path: pathlib.Path) -> str:
    """Of GDAL's many, the one for how a file begins."""
    if is_jpeg2000(path):
        return "JP2OpenJPEG"
    return "PNG" if is_deep_png(path) else "GTiff"


def _pages(
    path: pathlib.Path, layout: tiff.Layout | None
) -> list[tuple[pathlib.Path | str, int | None]]:
    """What is opened for the image, and for levels that are pages after an image that is none of
    the first."""
    if layout is None or layout.page == 0:
        return [(path, None)]
    # GDAL counts directories from 1.
    return [(f"GTIFF_DIR:{page + 1}:{path}", None) for page in (layout.page, *layout.levels)]


def _shape(path: pathlib.Path | str, overview: int | None) -> tuple[int, int]:
    with _open(path, overview) as file:
        return file.shape


@contextlib.contextmanager
def _as_slide_error(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except protocol.SlideError:
        raise
    except Exception as error:  # GDAL's classes, rasterio's, and those of odd names have no base
        cause = error.__cause__ or error
        raise protocol.SlideError.because(path, "a readable raster", cause) from error


def _overviews(path: pathlib.Path, file: rasterio.DatasetReader) -> dict[int, tuple[int, int]]:
    """Shapes of the overviews that are the whole image made smaller, finest first.

    Factors are given rounded: only an opened overview knows its shape. None is kept open.
    """
    shapes = {}
    for number in range(len(file.overviews(1))):
        shapes[number] = _shape(path, number)
    by_number, last = {}, file.shape
    for number, shape in sorted(shapes.items(), key=lambda item: max(item[1]), reverse=True):
        ratio = max(file.shape) / max(shape)
        is_whole = all(abs(f / ratio - n) < 1 for f, n in zip(file.shape, shape, strict=True))
        if is_whole and max(shape) < max(last):
            by_number[number] = last = shape
    return by_number


def _to_srgb(file: rasterio.DatasetReader) -> colour.ToSrgb | None:
    profile = file.tags(ns="COLOR_PROFILE").get("SOURCE_ICC_PROFILE")
    return colour.ToSrgb.from_bytes(base64.b64decode(profile)) if profile else None
