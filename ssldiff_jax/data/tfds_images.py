"""The images of TFDS data sets as lists of patches."""

import io
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ssldiff_jax.core import arrays
from ssldiff_jax.data.npy_list import PatchListError
from ssldiff_jax.slides import colour, pixels
from ssldiff_jax.slides import reading as reading_lib

TFDS = "tfds:"
"""What stands before the name of a TFDS data set."""


class TfdsImages:
    """The images of a TFDS data set, all its splits one after the other.

    What is not prepared yet is downloaded; most data sets need TensorFlow for that, once.
    """

    def __init__(self, name: str, reading: reading_lib.ReadingConfig = reading_lib.AS_STORED):
        self.source, self._reading = TFDS + name, reading
        try:
            # Read at random, and without TensorFlow.
            builder = tfds.builder(name, file_format="array_record")
            tfds.disable_progress_bar()
            builder.download_and_prepare()
            feature = builder.info.features["image"]
            # TFDS's decoding would lose the colour profile.
            decoders = {"image": tfds.decode.SkipDecoding()}
            self._splits = [builder.as_data_source(s, decoders=decoders) for s in _splits(builder)]
        except Exception as error:  # networks, disks and data sets each have their own
            raise PatchListError(
                f"expected a TFDS data set of images, prepared or to be downloaded, got {name}: "
                f"{reason(error):.300}"
            ) from error
        features = builder.info.features
        self._classes = getattr(features["label"], "names", None) if "label" in features else None
        self._decode = feature.decode_example_np
        self._shape = feature.shape
        self._ends = np.cumsum([len(split) for split in self._splits])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def largest_side(self) -> int:
        """The longer side of its images, px; 0 where they differ."""
        return max(side or 0 for side in self._shape[:2])

    def name(self, number: int) -> str:
        example = self._example(number)
        # The file's name where the data set keeps it: cases are found in it.
        name = example.get("filename", example.get("id", f"{number:08d}"))
        return name.decode() if isinstance(name, bytes) else str(name)

    def label(self, number: int) -> str:
        label = self._example(number).get("label")
        return "" if label is None or self._classes is None else self._classes[int(label)]

    def shape(self, number: int) -> tuple[int, int]:
        if self.largest_side:
            return self._shape[0], self._shape[1]
        return self.read(number).shape[:2]

    def read(self, number: int) -> arrays.ImageUint8:
        encoded = self._example(number)["image"]
        if self._reading.colour == "srgb":
            return _as_srgb(encoded, f"{self.source}: {self.name(number)}")
        image = np.asarray(self._decode(encoded))
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def _example(self, number: int) -> dict[str, Any]:
        split = int(np.searchsorted(self._ends, number, side="right"))
        start = self._ends[split - 1] if split else 0
        return self._splits[split][int(number - start)]


def _as_srgb(encoded: bytes, name: str) -> arrays.ImageUint8:
    """An encoded image by the ICC profile that it has, if any."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            profile = image.info.get("icc_profile")
            return pixels.to_rgb(image, colour.ToSrgb.from_bytes(profile) if profile else None)
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types
        raise PatchListError(f"{name}: expected an image, got: {reason(error):.200}") from error


def reason(error: BaseException) -> str:
    """One line; what TFDS misses most often by its name."""
    causes, cause = [], error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(c, ImportError) and "tensorflow" in str(c).lower() for c in causes):
        return "to prepare it TFDS needs TensorFlow, once (pip install tensorflow-cpu)"
    return " ".join(str(error).split()) or type(error).__name__


def _splits(builder: tfds.core.DatasetBuilder) -> list[str]:
    # In one order always: patches are known by their number through all splits.
    return sorted(builder.info.splits)
