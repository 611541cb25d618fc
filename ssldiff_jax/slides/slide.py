"""One slide at any mpp, whatever the file: the `Slide` protocol and how to open one."""

import hashlib
import logging
import math
import os
import pathlib
import stat
from typing import Protocol, runtime_checkable

import numpy as np

from ssldiff_jax.core import arrays, pixel_units
from ssldiff_jax.slides import content, downsamples, listing, ngff, resample, warn
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides.protocol import Backend, NoScaleError, PixelSize, SlideError

__all__ = ["Slide", "SlideError", "find_slides", "open_slide", "slide_of"]

_LOG = logging.getLogger(__name__)

MPP_TOLERANCE = 0.01
"""0.499 and 0.5 µm/px are the same magnification: no resampling for that."""

SUFFIXES = listing.SUFFIXES
"""What counts as a slide when a directory is searched."""

_LEAST_MORE = 1.1  # pixels of an overview that make one, where they do not fit exactly
_MAX_SOURCE_VALUES = 3 * 2**24  # held at once while a region is read: 200 MB as float32


@runtime_checkable
class Slide(Protocol):
    """A slide: `mpp` native microns per pixel, `shape` (height, width) of level 0 in pixels,
    `multiband` its bands, none of RGB."""

    path: pathlib.Path
    mpp: float
    shape: tuple[int, int]
    multiband: multiband_lib.MultibandConfig

    def shape_at(self, mpp: float) -> tuple[int, int]:
        """Return (height, width) in whole pixels at that mpp, at least 1 × 1."""
        ...

    def downsample(self, mpp: float) -> float:
        """Return level-0 pixels per pixel at that mpp."""
        ...

    def read_region(
        self, top: int, left: int, height: int, width: int, *, mpp: float
    ) -> arrays.Pixels:
        """Return (height, width, bands); all numbers are pixels at `mpp`. Beyond the border RGB is
        white, and other bands are 0."""
        ...

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        ...


def open_slide(
    path: str | pathlib.Path,
    *,
    mpp: float | None = None,
    otherwise_mpp: float | None = None,
    reading: reading_lib.ReadingConfig = reading_lib.AS_STORED,
) -> Slide:
    """Open a whole-slide image, a GeoTIFF, a folder of OME-Zarr, or a plain image (png, jpg …).

    `mpp` is microns per pixel of level 0 and overrides the file's; `otherwise_mpp` is taken, with a
    warning, where the file has none, or an impossible one (a scanner's of 5000 µm/px), and never
    where it says that pixels are not square or contradicts itself.
    Plain images are decoded whole in memory; the dpi of a photograph is not used as an mpp.
    Raises SlideError for a file that is missing, damaged or truncated, and where no mpp is known.
    """
    # Not at the top: a machine that only computes can open no slides.
    from ssldiff_jax.slides import backends

    path = pathlib.Path(path)
    check_file(path)
    require_mpp(path, mpp)
    return of_backend(path, backends.open_backend(path, reading), mpp, otherwise_mpp)


def require_mpp(path: pathlib.Path | str, mpp: float | None) -> None:
    """Raise SlideError for what is no scale."""
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise SlideError(f"expected mpp above 0 for {path}, got mpp={mpp}")


def of_backend(
    path: pathlib.Path | str, backend: Backend, mpp: float | None, otherwise_mpp: float | None
) -> "LeveledSlide":
    """The slide of a backend, which is closed where no scale is known (SlideError)."""
    from ssldiff_jax.slides import backends

    try:
        is_scan = isinstance(backend, backends.OpenSlideBackend)
        native_mpp = mpp or _native_mpp(path, backend.pixel_size, otherwise_mpp, is_scan=is_scan)
    except SlideError:
        backend.close()
        raise
    stated = backend.pixel_size.mpp
    if stated is not None and abs(native_mpp / stated - 1) > MPP_TOLERANCE:
        asked, said = map(pixel_units.per_pixel, (native_mpp, stated))
        warn.once(f"{path} has {asked} as asked for; its file says {said}")
    return LeveledSlide(pathlib.Path(path), native_mpp, backend)


def _native_mpp(
    path: pathlib.Path | str, size: PixelSize, otherwise_mpp: float | None, *, is_scan: bool
) -> float:
    if size.mpp is not None:
        return size.mpp
    if otherwise_mpp is None or size.wrong:
        microns, metres = (
            f"--config.data.{key} per pixel>" for key in ("mpp=<microns", "metres=<metres")
        )
        # A picture may be of either.
        either = microns if is_scan else f"{microns} or {metres}"
        raise NoScaleError(f"{size.problem} in {path}", metres if size.is_ground else either)
    _LOG.warning("%s in %s: using %s", size.absent, path, pixel_units.per_pixel(otherwise_mpp))
    return otherwise_mpp


def native_pixels(native_mpp: float, mpp: float) -> float:
    """Native pixels for one of `mpp`: a power of two where it is one within `MPP_TOLERANCE`."""
    power = 2.0 ** round(math.log2(mpp / native_mpp))
    return power if abs(mpp / native_mpp / power - 1) <= MPP_TOLERANCE else mpp / native_mpp


def slide_of(
    name: str,
    pixels: arrays.Pixels,
    *,
    mpp: float,
    multiband: multiband_lib.MultibandConfig = multiband_lib.NO_BANDS,
) -> Slide:
    """A slide of pixels that no file of ours holds; `name` stands for its path."""
    from ssldiff_jax.slides import backends

    backend = backends.PixelBackend(pixels, PixelSize(mpp), multiband)
    return LeveledSlide(pathlib.Path(name), mpp, backend)


def find_slides(pattern: str) -> list[pathlib.Path]:
    """List the files of comma-separated paths, globs (`**` recurses) and directories, sorted.

    A directory means what is directly in it and has a known suffix (`SUFFIXES`), unless it is an
    OME-Zarr itself. A file named twice is listed once, and so is a slide of several files (DICOM
    series, VMS). Raises SlideError
    where a part of the pattern matches nothing.
    """
    is_one_path = os.path.exists(os.path.expanduser(pattern))  # it may have commas in its name
    by_path = {}
    for part in [pattern] if is_one_path else pattern.split(","):
        matches = listing.find(part.strip())
        if not matches:
            raise SlideError(
                f"no slide matches '{part.strip()}': expected a file, a glob such as "
                "'slides/*.svs', or a directory of slides"
            )
        # Reversed: of several names of one file the first stays.
        by_path.update((os.path.realpath(match), match) for match in sorted(matches, reverse=True))
    return content.without_parts(sorted(by_path.values()))


def identity(slide: Slide) -> str:
    """A hash that copies of a slide share: of all its files, or of its pixels where it has none;
    of some of them where they are in many files, or far away."""
    if slide.path.is_file():
        return content.whole_digest(slide.path)
    if isinstance(slide, LeveledSlide) and (own := slide.content_hash()):
        return own
    height, width = slide.shape
    hasher = hashlib.sha256(repr(slide.shape).encode())
    for row in range(height):
        hasher.update(slide.read_region(row, 0, 1, width, mpp=slide.mpp))
    return hasher.hexdigest()


class LeveledSlide:
    """A `Slide` on top of stored levels, resampled from the nearest finer one.

    `factor` below is level-0 pixels per output pixel. Within `MPP_TOLERANCE` of a power of two it
    is taken as that power, so that a slide of 0.499 µm/px has one consistent set of coordinates
    at 0.5, 1, 2 … 8 µm/px and native pixels are never resampled.
    """

    def __init__(self, path: pathlib.Path, mpp: float, backend: Backend):
        self.path = path
        self.mpp = float(mpp)
        self.shape: tuple[int, int] = backend.level_shapes[0]
        self.multiband = backend.multiband
        self._backend = backend
        self._downsamples = downsamples.of_levels(backend)

    def downsample(self, mpp: float) -> float:
        """Return level-0 pixels per pixel at that mpp. Raises SlideError where it is too fine."""
        if not mpp > 0 or mpp < self.mpp / 2 * (1 - MPP_TOLERANCE):
            raise SlideError(
                f"expected at least half of the native {pixel_units.per_pixel(self.mpp)} of "
                f"{self.path}, got {pixel_units.per_pixel(mpp)}: "
                f"{pixel_units.patch_key(self.mpp)} says that of patches"
            )
        return native_pixels(self.mpp, mpp)

    def shape_at(self, mpp: float) -> tuple[int, int]:
        """Return (height, width) in whole pixels at that mpp, at least 1 × 1."""
        factor = self.downsample(mpp)
        # Rounding must not cost a pixel where the factor divides the size.
        height, width = (max(1, math.floor(size / factor + 1e-6)) for size in self.shape)
        return height, width

    def read_region(
        self, top: int, left: int, height: int, width: int, *, mpp: float
    ) -> arrays.Pixels:
        """Return (height, width, bands) at `mpp`, by area from the nearest finer level.

        `top`, `left` may be negative; what lies beyond the border is `multiband.fill`. Memory
        beyond the result is bounded. Raises SlideError for damaged pixels, an empty region, or an
        mpp finer than half the native one (up to there it is bicubic).
        """
        if height < 1 or width < 1:
            raise SlideError(
                f"expected a region of at least 1 × 1 px of {self.path}, got {height} × {width}"
            )
        factor = self.downsample(mpp)
        # The coarsest level that is still fine enough: it is read fastest.
        all_scales = [tuple(factor / d for d in axes) for axes in self._downsamples]
        level = max((i for i, s in enumerate(all_scales) if self._makes_whole(s)), default=0)
        scales = all_scales[level]
        read = self._stored if _is_one(scales) else self._resampled
        out = np.empty((height, width, self.multiband.count), self.multiband.dtype)
        per_row = width * math.prod(max(s, 1) for s in scales) * self.multiband.count
        rows = max(1, int(_MAX_SOURCE_VALUES / per_row))
        for row in range(0, height, rows):
            strip = out[row : row + rows]
            read(strip, top + row, left, level=level, scales=scales)
        return out

    def content_hash(self) -> str | None:
        """A hash of some of the pixels, where the reader has one."""
        hashed = getattr(self._backend, "content_hash", None)
        return hashed() if hashed else None

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        self._backend.close()

    def _makes_whole(self, scales: downsamples.Axes) -> bool:
        """Whether so many pixels of a level make one that is asked for."""
        # A thousandth more than one of an overview would blur where two meet in the middle of one.
        least = _LEAST_MORE if self._backend.levels_cover_all else 1 - 1e-6
        return _is_one(scales) or min(scales) >= least

    def _stored(
        self, out: np.ndarray, top: int, left: int, *, level: int, scales: downsamples.Axes
    ) -> None:
        """Fill `out` with the pixels of a level as they are stored."""
        size = self._backend.level_shapes[level]
        (y0, y1), (x0, x1) = (
            (min(max(first, 0), n), min(max(first + count, 0), n))
            for first, count, n in zip((top, left), out.shape, size, strict=False)
        )
        out[:] = self.multiband.fill
        if y1 > y0 and x1 > x0:
            region = self._backend.read(level, y0, x0, y1 - y0, x1 - x0)
            out[y0 - top : y1 - top, x0 - left : x1 - left] = region

    def _resampled(
        self, out: np.ndarray, top: int, left: int, *, level: int, scales: downsamples.Axes
    ) -> None:
        """Fill `out` with level pixels resampled by `scales` level pixels per output pixel."""
        shape, downsample = self._backend.level_shapes[level], self._downsamples[level]
        rows, columns = (
            resample.plan_axis(first, count, factor=scale, size=n, extent=full / d)
            for first, count, scale, n, full, d in zip(
                (top, left), out.shape[:2], scales, shape, self.shape, downsample, strict=True
            )
        )
        height, width = rows.stop - rows.start, columns.stop - columns.start
        source = out[:0, :0]
        if height > 0 and width > 0:
            source = self._backend.read(level, rows.start, columns.start, height, width)
        out[:] = resample.apply(source, rows, columns, fill=self.multiband.fill)


def check_file(path: pathlib.Path) -> None:
    """Raise SlideError for what is no file with something in it that may be read, nor OME-Zarr."""
    problem = ""
    if ngff.is_folder(path):
        return
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would wait
            problem = "a directory" if path.is_dir() else "no regular file"
        else:
            with path.open("rb") as file:
                problem = "" if file.read(1) else "an empty file"
    except FileNotFoundError:
        problem = "no such file"
    except (OSError, ValueError) as error:  # ValueError: a null character in a name
        problem = getattr(error, "strerror", None) or str(error)
    if problem:
        raise SlideError(f"expected a slide or image file, got {path}: {problem}")


def _is_one(scales: downsamples.Axes) -> bool:
    return all(math.isclose(scale, 1, rel_tol=1e-9) for scale in scales)
