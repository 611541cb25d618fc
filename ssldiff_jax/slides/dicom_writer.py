"""Write a whole-slide image as a DICOM series, one instance for each level, row by row.

Source: DICOM PS3.3, A.32.8 (VL Whole Slide Microscopy Image) and C.8.12.4; PS3.5, A.4.
"""

import dataclasses
import hashlib
import pathlib
import shutil
import struct
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import dicom_attributes, halving, optional, whole_file

if TYPE_CHECKING:
    from pydicom import Dataset

_TILE = 512  # px
_FULL_COLOUR = 90  # JPEG of this quality and above keeps the resolution of colour
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# PixelData of bytes, of a length that is not said, and an empty table of offsets.
_PIXEL_DATA = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + _ITEM + bytes(4)


@dataclasses.dataclass
class _Frames:
    """Encoded tiles of a level in a file, as items of PixelData.

    Attributes:
        offsets: of their items from the first one's, bytes.
        lengths: of their JPEG streams, padded to an even number.
    """

    file: BinaryIO
    offsets: list[int] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)

    def add(self, jpeg: bytes) -> None:
        jpeg += bytes(len(jpeg) % 2)
        self.offsets.append(self.file.tell())
        self.lengths.append(len(jpeg))
        self.file.write(_ITEM + struct.pack("<I", len(jpeg)) + jpeg)


def write(
    path: pathlib.Path, rows: halving.RowsFn, shape: tuple[int, int], *, mpp: float, quality: int
) -> None:
    """Write a folder of instances, `level_0.dcm` and so on: tiles of JPEG baseline, all there
    (TILED_FULL). The same image becomes the same files.

    Raises OSError, naming the path, where it cannot be written; then nothing is left behind.
    Raises ValueError without the library.
    """
    optional.require(["dcm"])
    levels = halving.shapes(*shape, _TILE)
    with whole_file.replacing_folder(path) as temporary:
        temporary.mkdir()
        names = [temporary / f"level_{level}.frames" for level in range(len(levels))]
        # "x": the folder is new, and so is all that is in it.
        frames = [_Frames(name.open("x+b")) for name in names]
        try:
            content = _encode(frames, levels, rows, quality)
            series = dicom_attributes.Series(path.name.partition(".")[0], mpp, content)
            for level, (encoded, name) in enumerate(zip(frames, names, strict=True)):
                image = dicom_attributes.Level(level, levels[level], levels[0], _TILE)
                _write_instance(name.with_suffix(".dcm"), series.instance(image), encoded, image)
        finally:
            for encoded in frames:
                encoded.file.close()
        for name in names:
            name.unlink()


def _encode(
    frames: list[_Frames], levels: list[tuple[int, int]], rows: halving.RowsFn, quality: int
) -> str:
    """Fill the frames of all levels; returns a hash of them."""
    # Not at the top: a machine that only computes need not have it.
    import simplejpeg

    hasher = hashlib.sha256()
    sampling = "444" if quality >= _FULL_COLOUR else "422"
    for level, _, strip in halving.Strips(levels, _TILE).of(rows):
        for left in range(0, strip.shape[1], _TILE):
            tile = _whole(strip[:, left : left + _TILE])
            # Not by the fast transform, which loses more.
            jpeg = simplejpeg.encode_jpeg(
                tile, quality=quality, colorsubsampling=sampling, fastdct=False
            )
            hasher.update(jpeg)
            frames[level].add(jpeg)
        # Or it would stay while the next one is made.
        del strip
    return hasher.hexdigest()


def _whole(tile: np.ndarray) -> arrays.ImageUint8:
    """A tile of full size: beyond the image its border is repeated, which costs JPEG least."""
    height, width = tile.shape[:2]
    beyond = ((0, _TILE - height), (0, _TILE - width), (0, 0))
    return np.ascontiguousarray(np.pad(tile, beyond, mode="edge"))


def _write_instance(
    path: pathlib.Path, dataset: "Dataset", frames: _Frames, image: dicom_attributes.Level
) -> None:
    import pydicom

    dataset.NumberOfFrames = len(frames.lengths)
    raw = 3 * image.shape[0] * image.shape[1]
    dataset.LossyImageCompressionRatio = f"{raw / sum(frames.lengths):.4g}"
    dataset.ExtendedOffsetTable = struct.pack(f"<{len(frames.offsets)}Q", *frames.offsets)
    dataset.ExtendedOffsetTableLengths = struct.pack(f"<{len(frames.lengths)}Q", *frames.lengths)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    frames.file.seek(0)
    # Not by the library, which would hold all frames in memory.
    with path.open("ab") as file:
        file.write(_PIXEL_DATA)
        shutil.copyfileobj(frames.file, file)
        file.write(_SEQUENCE_END + bytes(4))
