"""Patch records as a TFDS data set in ArrayRecord files, written and read without TensorFlow."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int
from PIL import Image

from ssldiff_jax.core import arrays
from ssldiff_jax.data import plan


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """What the builder writes: how to read a square, and the squares of each split."""

    read: Callable[[plan.Square], arrays.ImageUint8]
    splits: dict[str, list[plan.Square]]
    jpeg_quality: int


class PatchRecords(tfds.core.GeneratorBasedBuilder):
    """One JPEG a record, with the place it was taken from."""

    VERSION = tfds.core.Version("1.1.0")

    def __init__(self, *, record_plan: RecordPlan | None = None, **kwargs):
        self._plan = record_plan
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "slide": np.int64,
                "top": np.int64,
                "left": np.int64,
                "row": np.int64,
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, description="Squares of slides with enough tissue."
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {name: self._generate_examples(name) for name in self._plan.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for square in self._plan.splits[split]:
            pixels = self._plan.read(square)
            key = f"{square.slide:06d}_{square.top:07d}_{square.left:07d}_{square.row}"
            yield (
                key,
                {
                    "image": encode(pixels, self._plan.jpeg_quality),
                    "slide": square.slide,
                    "top": square.top,
                    "left": square.left,
                    "row": square.row,
                },
            )


def decode(encoded: bytes) -> arrays.ImageUint8:
    """The pixels of a stored square."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def encode(pixels: arrays.ImageUint8, quality: int) -> io.BytesIO:
    """A square as it is stored."""
    buffer = io.BytesIO()
    # 4:4:4 keeps the chroma that 4:2:0 would halve: in stained tissue colour is signal.
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    buffer.seek(0)
    return buffer


def write_records(folder: pathlib.Path, record_plan: RecordPlan) -> dict[str, int]:
    """Write the data set under `folder`; returns the number of records of every split."""
    builder = PatchRecords(
        record_plan=record_plan, data_dir=str(folder), file_format="array_record"
    )
    tfds.disable_progress_bar()
    builder.download_and_prepare()
    return {name: split.num_examples for name, split in builder.info.splits.items()}


_DECODED = 1024  # records kept as pixels: 200 MB of 256 px ones


class RecordSource:
    """Random access to the records of one split, as decoded pixels.

    The last records read stay decoded: a small slide is drawn from many times over.
    """

    def __init__(self, folder: pathlib.Path, split: str):
        builder = PatchRecords(data_dir=str(folder), file_format="array_record")
        decoders = {"image": tfds.decode.SkipDecoding()}
        self._source = builder.as_data_source(split, decoders=decoders)
        self._name = f"{folder.name}/{split}"
        self._pixels = functools.lru_cache(_DECODED)(self._decode)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> arrays.ImageUint8:
        return self._pixels(int(number))

    def _decode(self, number: int) -> arrays.ImageUint8:
        return decode(self._source[number]["image"])

    def squares(self) -> Int[np.ndarray, "N 3"]:
        """(slide, top, left) of every record; all of them are read."""
        keys = ("slide", "top", "left")
        found = np.zeros((len(self), len(keys)), np.int64)
        for number in range(len(self)):
            record = self._source[number]
            found[number] = [int(record[key]) for key in keys]
        return found

    def place(self, number: int) -> tuple[int, int]:
        """(slide, row): which embedding computed elsewhere is this record's."""
        record = self._source[int(number)]
        return int(record["slide"]), int(record["row"])

    def __repr__(self) -> str:
        # Grain stores this beside the iterator state and refuses to restore another source.
        return f"RecordSource({self._name}, {len(self)})"
