"""Images as files of one format: features are taken of what comes back from these."""

import dataclasses
import io
import pathlib
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

import numpy as np
from jaxtyping import UInt
from PIL import Image

from ssldiff_jax.core import arrays, machine
from ssldiff_jax.formats import atomic, stacked_png

T = TypeVar("T")
Patches = UInt[np.ndarray, "N s s bands"]


@dataclasses.dataclass(frozen=True)
class Format:
    """PNG where `jpeg_quality` is 0, else JPEG of this quality, 1…100; PNG of stacked bands where
    images have other ones than red, green and blue."""

    jpeg_quality: int = 0
    is_stacked: bool = False

    def __post_init__(self):
        if self.jpeg_quality and self.is_stacked:
            raise ValueError(
                "config.evaluate.jpeg_quality must be 0 of images of other bands than red, green "
                f"and blue, got {self.jpeg_quality}"
            )

    def __str__(self) -> str:
        if self.is_stacked:
            return "PNG of stacked bands"
        return f"JPEG {self.jpeg_quality}" if self.jpeg_quality else "PNG"

    @property
    def suffix(self) -> str:
        """Of a file's name."""
        if self.is_stacked:
            return ".bands.png"
        return ".jpg" if self.jpeg_quality else ".png"

    def encode(self, pixels: arrays.Pixels) -> bytes:
        """The content of a file."""
        if self.is_stacked:
            return stacked_png.encode(pixels)
        buffer = io.BytesIO()
        image = Image.fromarray(pixels)
        if self.jpeg_quality:
            image.save(buffer, "JPEG", quality=self.jpeg_quality)
        else:
            # All levels hold the same pixels; this one is the fastest that compresses.
            image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def through(self, patches: Patches) -> Patches:
        """Images as they come back from files; PNG loses nothing."""
        if not self.jpeg_quality:
            return patches
        return np.stack([_decode(io.BytesIO(self.encode(patch))) for patch in patches])


@dataclasses.dataclass(frozen=True)
class Files:
    """Images of one size in a folder, by number: `000000.png`."""

    folder: pathlib.Path
    format: Format

    def has(self, start: int, stop: int) -> bool:
        """Whether all numbers from `start` up to `stop` are there."""
        return all(self._path(number).exists() for number in range(start, stop))

    def write(self, start: int, patches: Patches) -> None:
        """Write images under the numbers from `start` on, each whole or not at all."""

        def write(number: int) -> None:
            content = self.format.encode(patches[number - start])
            atomic.write_atomic(self._path(number), lambda path: path.write_bytes(content))

        _in_threads(write, range(start, start + len(patches)))

    def read(self, start: int, stop: int) -> Patches:
        """The images from `start` up to `stop`."""
        return np.stack(_in_threads(self.one, range(start, stop)))

    def one(self, number: int) -> arrays.Pixels:
        """The image of a number."""
        path = self._path(number)
        return stacked_png.read(path.read_bytes()) if self.format.is_stacked else _decode(path)

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:06d}{self.format.suffix}"


def _in_threads(work: Callable[[int], T], numbers: range) -> list[T]:
    """What `work` gives of each number: coders let go of the interpreter."""
    with futures.ThreadPoolExecutor(machine.cores()) as pool:
        return list(pool.map(work, numbers))


def _decode(file: pathlib.Path | io.BytesIO) -> arrays.ImageUint8:
    with Image.open(file) as image:
        # Files from elsewhere may have a palette, grey, or transparency.
        return np.asarray(image.convert("RGB"))
