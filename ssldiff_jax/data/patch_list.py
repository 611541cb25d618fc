"""Lists of patches that are already cut: image files, one array of pixels, a TFDS data set."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from ssldiff_jax.core import arrays
from ssldiff_jax.data import image_folder, tfds_images
from ssldiff_jax.data.npy_list import PatchListError, read_array
from ssldiff_jax.slides import backends, choosing, pixels, remote
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib

__all__ = [
    "FOLDER",
    "ImageFiles",
    "PatchList",
    "PatchListError",
    "PixelArray",
    "is_list",
    "open_list",
]

FOLDER = "folder:"
"""What stands before a folder of images, each of them a patch."""

_READ_AS_SLIDES = (".tif", ".tiff", ".jp2")  # they have pages, bands and depths

Pictures = Literal["alike", "as stored"]
"""How pictures of 8 bits are read by a reading that is of rasters."""


class PatchList(Protocol):
    """Patches in a fixed order."""

    source: str

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What a patch is called; its case is found in it."""
        ...

    def label(self, number: int) -> str:
        """The name of its class, "" where it is unknown."""
        ...

    def shape(self, number: int) -> tuple[int, int]:
        """Height and width. Raises PatchListError for a patch that cannot be read."""
        ...

    def read(self, number: int) -> arrays.Pixels:
        """The pixels, of the bands that a reading names. Raises PatchListError for a patch that
        cannot be read."""
        ...


class ImageFiles:
    """Image files by the names in a list, relative to the list's folder, or to the one folder
    beside the list that has the first of them.

    `left_out` are names of images in a folder that are of no suffix that patches have.
    """

    def __init__(
        self,
        path: pathlib.Path,
        names: list[str],
        reading: reading_lib.ReadingConfig = reading_lib.AS_STORED,
        pictures: Pictures = "alike",
    ):
        self.source = str(path)
        self._names, self._reading, self._pictures = names, reading, pictures
        self._folder = image_folder.folder_of(path, names)
        self.left_out = image_folder.left_out(path) if path.is_dir() else []

    def __len__(self) -> int:
        return len(self._names)

    def name(self, number: int) -> str:
        return remote.printable(self._names[number])

    def fingerprint(self) -> str:
        """A hash of names, sizes and times of all files."""
        hasher = hashlib.sha256()
        for name in self._names:
            try:
                stat = (self._folder / name).stat()
                facts = (name, stat.st_size, stat.st_mtime_ns)
            except (OSError, ValueError):  # ValueError: a null character in a name
                facts = (name, -1, 0)
            hasher.update(repr(facts).encode())
        return hasher.hexdigest()[:32]

    def label(self, number: int) -> str:
        return pathlib.PurePath(self._names[number]).parent.name

    def shape(self, number: int) -> tuple[int, int]:
        path = self._folder / self._names[number]
        if self._reading.is_of_rasters or path.suffix.lower() in _READ_AS_SLIDES:
            return self._opened(path, lambda backend: backend.level_shapes[0])
        try:
            slide_lib.check_file(path)
            with Image.open(path) as image:
                pixels.require_still(image)
                return pixels.upright_shape(image)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types
            detail = " ".join(str(error).split())
            raise PatchListError(f"expected an image, got {path}: {detail:.200}") from error

    def read(self, number: int) -> arrays.Pixels:
        path = self._folder / self._names[number]
        return self._opened(path, lambda b: b.read(0, 0, 0, *b.level_shapes[0]))

    def _opened(self, path: pathlib.Path, look: Callable[[backends.Backend], Any]) -> Any:
        """What is seen in a file, which is read as a slide is."""
        reading = self._reading
        if self._pictures == "as stored":
            reading = reading.of_picture(path)
        try:
            slide_lib.check_file(path)
            with contextlib.closing(backends.open_backend(path, reading)) as backend:
                return look(backend)
        except Exception as error:  # whatever a file trips over costs that file
            raise PatchListError(
                f"expected an image, got {path}: {tfds_images.reason(error)}"
            ) from error


class PixelArray:
    """One .npy array of pixels, mapped and not read whole: uint8 (N, H, W, 3), or uint8 or uint16
    (N, H, W, bands) of the bands that a config names, whose range may be another than a record's.
    """

    def __init__(
        self,
        path: pathlib.Path,
        values: np.ndarray,
        multiband: multiband_lib.MultibandConfig = multiband_lib.NO_BANDS,
    ):
        kinds = ("uint8", "uint16") if multiband.is_used else ("uint8",)
        shape = (values.ndim, values.shape[-1:])
        if str(values.dtype) not in kinds or shape != (4, (multiband.count,)):
            names = f" ({', '.join(multiband.names)})" if multiband.is_used else ""
            raise PatchListError(
                f"{path}: expected patches as {' or '.join(kinds)} (N, H, W, {multiband.count})"
                f"{names}, or their names, got {values.dtype} {values.shape}"
            )
        if multiband.is_used:
            _require_fits(path, values, multiband)
        self.source = str(path)
        self._values, self._multiband = values, multiband

    def fingerprint(self) -> str:
        """Changes when the file does."""
        stat = pathlib.Path(self.source).stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}"

    def __len__(self) -> int:
        return len(self._values)

    def name(self, number: int) -> str:
        return f"{number:08d}"

    def label(self, number: int) -> str:
        return ""

    def shape(self, number: int) -> tuple[int, int]:
        return self._values.shape[1], self._values.shape[2]

    def read(self, number: int) -> arrays.Pixels:
        pixels = np.array(self._values[number])
        if not self._multiband.is_used:
            return pixels
        return self._multiband.to_records(np.moveaxis(pixels, -1, 0))


def _require_fits(
    path: pathlib.Path, values: np.ndarray, multiband: multiband_lib.MultibandConfig
) -> None:
    try:
        choosing.require_fits(path, values.dtype, multiband, lambda: np.asarray(values[0]))
    except slide_lib.SlideError as error:
        raise PatchListError(str(error)) from error


def is_list(spec: str) -> bool:
    """Whether a config's `data.slides` names patches that are already cut, or large images of
    TFDS."""
    return spec.startswith((tfds_images.TFDS, FOLDER)) or spec.endswith(".npy")


def open_list(
    spec: str,
    reading: reading_lib.ReadingConfig = reading_lib.AS_STORED,
    *,
    pictures: Pictures = "alike",
) -> PatchList:
    """Open `tfds:NAME`, `folder:PATH` (all images in it, in folders named by their classes if any),
    or a .npy file of pixels or of names of image files.

    Files are read as slides are, by `reading`; `pictures` of 8 bits may be taken as stored. Raises
    PatchListError for anything else, a list of nothing, and bands or a range of what is no file.
    """
    if spec.startswith(FOLDER):
        folder = pathlib.Path(os.path.expanduser(spec.removeprefix(FOLDER)))
        return ImageFiles(folder, image_folder.names_in(folder), reading, pictures)
    if spec.startswith(tfds_images.TFDS):
        _require_no_bands(spec, reading, pictures)
        if reading.multiband.is_used:
            raise PatchListError(
                f"{spec}: expected files or a .npy array where config.data.reading.multiband names "
                f"bands ({', '.join(reading.multiband.names)}), got a data set of TFDS, which has "
                "red, green and blue"
            )
        return tfds_images.TfdsImages(spec.removeprefix(tfds_images.TFDS), reading)
    path = pathlib.Path(os.path.expanduser(spec))
    if not path.is_file():
        raise PatchListError(f"expected a .npy list of patches, got {path}: no such file")
    array = read_array(path)
    if getattr(array, "ndim", 1) and not len(array):
        raise PatchListError(f"{path}: expected patches, got an empty list")
    if isinstance(array, list):
        return ImageFiles(path, array, reading, pictures)
    _require_no_bands(spec, reading, pictures)
    return PixelArray(path, array, reading.multiband)


def _require_no_bands(spec: str, reading: reading_lib.ReadingConfig, pictures: Pictures) -> None:
    if reading.is_of_rasters and pictures == "alike":
        raise PatchListError(
            f"{spec}: expected rasters for config.data.reading.bands, low and high, got pixels of "
            "8 bits"
        )
