"""Write OME-Zarr row by row: all levels in one pass, in memory that does not grow with the rows."""

import pathlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import UInt

from ssldiff_jax.slides import halving, multiband, optional, whole_file

if TYPE_CHECKING:
    import zarr

Version = Literal["0.4", "0.5"]
"""Of NGFF; 0.4 is Zarr 2, which every reader of OME-Zarr knows, 0.5 is Zarr 3."""

_CHUNK = 512  # px; also the rows that are held of each level
_SHARD = 4096  # px; a row of chunks is one file of that width, in Zarr 3
_COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
_WHITE = "FFFFFF"


def write(
    path: pathlib.Path,
    rows: halving.RowsFn,
    shape: tuple[int, int],
    *,
    mpp: float,
    version: Version,
    bands: multiband.MultibandConfig = multiband.NO_BANDS,
) -> None:
    """Write an image of a height and width whose rows a function gives; without loss. Channels are
    red, green and blue, or `bands`.

    Raises OSError, naming the path, where it cannot be written; then nothing is left behind.
    Raises ValueError without the library.
    """
    optional.require(["ome.zarr"])
    levels = halving.shapes(*shape, _CHUNK)
    with whole_file.replacing_folder(path) as temporary:
        metadata = _metadata(path.name.partition(".")[0], len(levels), mpp, bands)
        every = _create(temporary, levels, metadata, version, bands)
        halve = halving.bands_halved if bands.is_used else halving.rgb_halved
        for level, top, strip in halving.Strips(levels, _CHUNK, halve).of(rows):
            _fill(every[level], top, np.moveaxis(strip, -1, 0))
            # Or it would stay while the next one is made.
            del strip


def _fill(array: "zarr.Array", top: int, planes: UInt[np.ndarray, "bands h W"]) -> None:
    """Write some rows, a shard after the other: the library would copy all that it is given."""
    bottom = top + planes.shape[1]
    for left in range(0, planes.shape[2], _SHARD):
        part = np.ascontiguousarray(planes[:, :, left : left + _SHARD])
        array[:, top:bottom, left : left + part.shape[2]] = part


def _create(
    folder: pathlib.Path,
    levels: list[tuple[int, int]],
    metadata: dict[str, Any],
    version: Version,
    bands: multiband.MultibandConfig,
) -> "list[zarr.Array]":
    """The arrays of all levels, empty."""
    # Not at the top: it is optional.
    import zarr

    if version == "0.5":
        attributes: dict[str, Any] = {"ome": {"version": version} | metadata}
    else:
        attributes = metadata
        attributes["multiscales"][0]["version"] = attributes["omero"]["version"] = version
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format, attributes=attributes)
    return [
        group.create_array(
            str(level),
            shape=(bands.count, *shape),
            dtype=bands.dtype,
            fill_value=0,
            **_stored(shape, version, bands.count),
        )
        for level, shape in enumerate(levels)
    ]


def _stored(shape: tuple[int, int], version: Version, count: int) -> dict[str, Any]:
    """How an array is cut and compressed."""
    import zarr.codecs

    chunks = (count, _CHUNK, _CHUNK)
    if version == "0.5":
        # No wider than the image: a part of a shard beyond its border would be work for nothing.
        width = min(_SHARD, -(-shape[1] // _CHUNK) * _CHUNK)
        return {
            "chunks": chunks, "shards": (count, _CHUNK, width), "dimension_names": ("c", "y", "x"),
            "compressors": zarr.codecs.ZstdCodec(level=1),
        }  # fmt: skip
    import numcodecs

    return {
        "chunks": chunks, "chunk_key_encoding": {"name": "v2", "separator": "/"},
        # Readers in Java know Blosc and zlib alone.
        "compressors": numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE),
    }  # fmt: skip


def _metadata(
    name: str, num_levels: int, mpp: float, bands: multiband.MultibandConfig
) -> dict[str, Any]:
    """What both versions say alike."""
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": side, "type": "space", "unit": "micrometer"} for side in "yx"]
    datasets = [
        {"path": str(level), "coordinateTransformations": _transformations(mpp, 2**level)}
        for level in range(num_levels)
    ]
    image = {"name": name, "axes": axes, "datasets": datasets, "type": "mean"}
    return {
        "multiscales": [image],
        "omero": {"name": name, "channels": _channels(bands), "rdefs": {"model": "color"}},
    }


def _channels(bands: multiband.MultibandConfig) -> list[dict[str, Any]]:
    """Names and colours; viewers begin with those that are shown."""
    window = {"min": 0, "max": bands.top, "start": 0, "end": bands.top}
    view, colours = bands.shown_view.bands, list(_COLOURS.values())
    # One band alone is grey.
    colour_of = dict(zip(view, colours, strict=True)) if len(set(view)) > 1 else {view[0]: _WHITE}
    return [
        {
            "label": label,
            "color": colour_of.get(place, _WHITE),
            "active": place in colour_of,
            "window": window,
        }
        for place, label in enumerate(bands.names or _COLOURS)
    ]


def _transformations(mpp: float, factor: int) -> list[dict[str, Any]]:
    """Of a level whose pixels are means of `factor` × `factor`: their centres lie further in."""
    size, first = mpp * factor, mpp * (factor - 1) / 2
    return [
        {"type": "scale", "scale": [1.0, size, size]},
        {"type": "translation", "translation": [0.0, first, first]},
    ]
