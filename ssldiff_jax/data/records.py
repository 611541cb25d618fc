"""Records, squares of slides: how one is stored, and all of a split by their number.

A folder of records is a TFDS data set as well: `tfds.builder_from_directory(folder)` reads it.
"""

import contextlib
import functools
import io
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.data import plan
from ssldiff_jax.formats import atomic, stacked_png
from ssldiff_jax.formats import shards as shards_lib
from ssldiff_jax.slides import multiband as multiband_lib

if TYPE_CHECKING:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_serializer
    from tensorflow_datasets.proto import tf_example_pb2

_DECODED = 1024  # records of RGB kept as pixels, or as many bytes of others: 200 MB of 256 px ones


@functools.cache
def features(
    bands: multiband_lib.MultibandConfig = multiband_lib.NO_BANDS,
) -> "tfds.features.FeaturesDict":
    """What a record has: `top`, `left` are pixels at `mpp` from the corner of the slide; `row` is
    the place among the embeddings of the slide that were computed elsewhere, −1: none. An image of
    other bands than RGB is (bands · H, W, 1), the first one on top."""
    # Not at the top: a machine that only computes need not have it.
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    if bands.is_used:
        image = tfds.features.Image(shape=(None, None, 1), dtype=bands.dtype, encoding_format="png")
    return tfds.features.FeaturesDict(
        {
            "image": image,
            "slide": tfds.features.Text(),
            "case": tfds.features.Text(),
            "label": tfds.features.Text(),
            "mpp": np.float32,
            "top": np.int64,
            "left": np.int64,
            "row": np.int64,
        }
    )


@functools.cache
def _serializer() -> "example_serializer.ExampleSerializer":
    from tensorflow_datasets.core import example_serializer

    # Of any bands: bytes are stored, whatever image they are of.
    return example_serializer.ExampleSerializer(features().get_serialized_info())


def quality_of(jpeg_quality: int, bands: multiband_lib.MultibandConfig) -> int | None:
    """How squares of a config are stored: see `encode`."""
    return None if bands.is_used else jpeg_quality


def facts_of(bands: multiband_lib.MultibandConfig) -> dict[str, Any]:
    """What an entry and a data set say of their bands; nothing of RGB."""
    return {"bands": bands.facts} if bands.is_used else {}


def encode(pixels: arrays.Pixels, quality: int | None) -> io.BytesIO:
    """A square as it is stored: RGB as JPEG of `quality`, 1…100; any bands without loss where that
    is None (`formats.stacked_png`)."""
    from PIL import Image

    if quality is None:
        return io.BytesIO(stacked_png.encode(pixels))
    buffer = io.BytesIO()
    # 4:4:4 keeps the chroma that 4:2:0 would halve: in stained tissue colour is signal.
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    buffer.seek(0)
    return buffer


# Of these simplejpeg gives Pillow's pixels, in three quarters of the time: the same library
# decodes, without two copies of them. CMYK is rounded otherwise; Pillow says best what is wrong.
_SAME = ("YCbCr", "RGB", "Gray")


def decode(encoded: bytes) -> arrays.Pixels:
    """The pixels of a stored square: all its bands, or RGB; nobody can write into them."""
    import simplejpeg
    from PIL import Image

    with contextlib.suppress(ValueError):
        if simplejpeg.is_jpeg(encoded) and simplejpeg.decode_jpeg_header(encoded)[2] in _SAME:
            pixels = simplejpeg.decode_jpeg(encoded, "RGB")
            # As Pillow's are: the last records read are shared by those who crop them.
            pixels.flags.writeable = False
            return pixels
    with Image.open(io.BytesIO(encoded)) as image:
        if stacked_png.KEY in image.info:
            return stacked_png.unstack(np.asarray(image), image.info[stacked_png.KEY])
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def serialize(
    encoded: io.BytesIO, square: plan.Square, *, slide: str, case: str, label: str, mpp: float
) -> bytes:
    """A record: an encoded square and where it was taken, as a tf.train.Example."""
    example = {
        "image": encoded, "slide": slide, "case": case, "label": label, "mpp": mpp,
        "top": square.top, "left": square.left, "row": square.row,
    }  # fmt: skip
    tf_example = _serializer().get_tf_example(features().encode_example(example))
    # Else the order of its fields would differ from process to process.
    return tf_example.SerializeToString(deterministic=True)


def encoded_image(record: bytes) -> bytes:
    """The square of a record as it is stored: a JPEG, or a PNG of other bands than RGB."""
    # Without TFDS's decoder, which would decode the picture and all other fields.
    fields = _message().FromString(record).features
    return fields.feature["image"].bytes_list.value[0]


def about(record: bytes) -> dict[str, str | float]:
    """What a record says of its slide: `slide`, `case`, `label` and `mpp`."""
    feature = _message().FromString(record).features.feature
    texts = {key: feature[key].bytes_list.value[0].decode() for key in ("slide", "case", "label")}
    return texts | {"mpp": feature["mpp"].float_list.value[0]}


@functools.cache
def _message() -> "type[tf_example_pb2.Example]":
    """That of a record."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example


class RecordSource:
    """Random access to the records of one split, as decoded pixels.

    Records are in the order of their slides and, within one, of their rows. Memory does not grow
    with their number: places are mapped, and a few shards are open. The last records read stay
    decoded: a small slide is cropped many times over.

    Raises ValueError where the folder has no manifest, or no such split.
    """

    def __init__(self, folder: pathlib.Path, split: str):
        path = pathlib.Path(folder) / "manifest.json"
        if not path.exists():
            raise ValueError(f"no records at {folder}: expected a manifest.json")
        manifest = atomic.read_json(path)
        splits = manifest["splits"]
        if split not in splits:
            raise ValueError(f"{path} must have one of the splits {', '.join(splits)}, got {split}")
        folder, self._name = path.parent, f"{path.parent.name}/{split}"
        bands = manifest.get("facts", {}).get("bands")
        self.num_bands: int = len(bands["names"]) if bands else 3
        self.dtype = np.dtype(f"uint{bands['bits']}" if bands else np.uint8)
        """Of pixels."""
        shards = splits[split]["shards"]
        self._reader = shards_lib.ShardReader(
            [folder / shard["file"] for shard in shards], [shard["count"] for shard in shards]
        )
        self.slides: Int[np.ndarray, "S 2"] = np.load(folder / f"slides-{split}.npy")
        """Number of a slide, and how many records it has."""
        mapped = np.load(folder / f"places-{split}.npy", mmap_mode="r")
        # As a plain array: each look into numpy's memmap makes an object of that class.
        self.places: Int[np.ndarray, "N 4"] = np.asarray(mapped)
        """(slide, top, left, row) of every record."""
        kept = _DECODED * 3 // (self.num_bands * self.dtype.itemsize)
        self._pixels = functools.lru_cache(kept)(self._decode)
        # Here, and not by the threads that decode: two that import TFDS at once, which imports its
        # parts when they are first named, may wait for each other for ever.
        _message()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> arrays.Pixels:
        return self._pixels(int(number))

    def encoded(self, numbers: Sequence[int]) -> list[bytes]:
        """Records by their numbers as they are stored."""
        return self._reader.read_many(numbers)

    def record(self, number: int) -> bytes:
        """A record as it is stored."""
        return self._reader.read(int(number))

    def place(self, number: int) -> tuple[int, int]:
        """(slide, row): which embedding computed elsewhere is this record's."""
        slide, _, _, row = self.places[int(number)].tolist()
        return slide, row

    def _decode(self, number: int) -> arrays.Pixels:
        return decode(encoded_image(self.record(number)))

    def __repr__(self) -> str:
        # Grain stores this beside the iterator state and refuses to restore another source.
        return f"RecordSource({self._name}, {len(self)})"
