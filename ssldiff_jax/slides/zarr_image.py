"""OME-Zarr read chunk by chunk, from a folder or from behind an address."""

import contextlib
import hashlib
import pathlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import (
    attempts,
    blocks,
    choosing,
    ngff,
    pixels,
    protocol,
    reading,
    samples,
    tiff,
    warn,
    zarr_store,
)
from ssldiff_jax.slides.protocol import SlideError

if TYPE_CHECKING:
    import zarr

INSTALL = 'pip install "zarr>=3.1"'

_LOOK = 1024  # px, side of what is looked at of the coarsest level
_PLACES, _PLACE = 8, 16  # windows of the finest level a side that are hashed, and their side, px
_NAMED = 6  # images of a store that a refusal names


class ZarrBackend:
    """An image of OME-Zarr: one channel, or three that are red, green and blue, or those that
    `config.bands` or `config.multiband` choose. Chunks that no one wrote have the array's fill
    value."""

    levels_cover_all = False

    def __init__(self, source: str | pathlib.Path, config: reading.ReadingConfig):
        self._source, self._config, self._lock = str(source), config, threading.Lock()
        self._is_far = "://" in self._source
        self.multiband = config.multiband
        with self._as_slide_error():
            self._store, group = self._answered(self._opened)
            group = _image_group(group, self._source)
            self._image = ngff.multiscale(group.attrs.asdict(), self._source)
            self._arrays = self._levels(group)
            self.pixel_size = self._image.pixel_size
            self.level_shapes = tuple(map(self._shape, self._arrays))
            self._bands = self._chosen_bands()
            self._blocks = [blocks.Blocks(self._shape(a), self._chunk(a)) for a in self._arrays]
            # An array of whole numbers has no value of no data.
            self.says_missing = self.multiband.is_used and self._arrays[0].dtype.kind == "f"
            self._samples = samples.Samples(self._bands, says_missing=self.says_missing)
            self._check_depth()
            protocol.probe(self)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> arrays.Pixels:
        """Return (height, width, bands) level pixels. Raises SlideError where a chunk is damaged,
        or does not come."""
        values = self._values(level, top, left, height, width)
        missing = np.zeros((height, width), bool)
        if values.dtype.kind == "f":
            missing |= np.isnan(values).any(axis=0)
        out = self._samples.decoded(values, missing, self._config)
        out[missing] = self.multiband.fill
        return out

    def content_hash(self) -> str:
        """A hash of stored values: all of the coarsest level, up to 1024² px of its middle, and
        windows all over the finest; copies share it in whatever chunks they are stored."""
        hasher = hashlib.sha256(repr((self.level_shapes, self._bands)).encode())
        hasher.update(np.ascontiguousarray(self._middle()).data)
        height, width = self.level_shapes[0]
        h, w = min(_PLACE, height), min(_PLACE, width)
        tops, lefts = (np.linspace(0, n, _PLACES).astype(int) for n in (height - h, width - w))
        for top in np.unique(tops):
            for left in np.unique(lefts):
                hasher.update(np.ascontiguousarray(self._values(0, top, left, h, w)).data)
        return hasher.hexdigest()

    def close(self) -> None:
        for level in self._blocks:
            level.forget()

    def _opened(self) -> "tuple[zarr.abc.store.Store, zarr.Group]":
        try:
            return zarr_store.open_group(self._source)
        except ImportError as error:
            raise SlideError(f"expected zarr to read {self._source}: {INSTALL}") from error
        except FileNotFoundError as error:
            raise SlideError(
                f"expected a Zarr group with an image, got {self._source}: no group is there"
            ) from error

    def _answered(self, request):
        """What a request returns; it is made again where it goes over a network."""
        return attempts.until_answered(self._source, request) if self._is_far else request()

    def _levels(self, group: "zarr.Group") -> list["zarr.Array"]:
        """Arrays of the levels; what is no level of the first is left out and told."""
        kept = []
        for path in self._image.paths:
            array = self._answered(lambda path=path: group[path])
            if getattr(array, "ndim", None) != len(self._image.axes):
                raise SlideError(
                    f"expected an array of axes {', '.join(self._image.axes)} at {path}, got "
                    f"shape {getattr(array, 'shape', 'of a group')} in {self._source}"
                )
            shape = self._shape(array)
            if not kept:
                self._require_plane(array)
            elif not tiff.is_level(self._shape(kept[0]), shape):
                full = "{} × {} px".format(*self._shape(kept[0]))
                warn.once(
                    f"{self._source}: {path} of {shape[0]} × {shape[1]} px is not a level of "
                    f"{full} and is left out"
                )
                continue
            self._store.watch(array)
            kept.append(array)
        return kept

    def _require_plane(self, array: "zarr.Array") -> None:
        for name, size in zip(self._image.axes, array.shape, strict=True):
            if name in "tz" and size != 1:
                raise SlideError(
                    f"expected one plane, got {size} along {name} in {self._source}: a stack is "
                    "no slide"
                )
        if 0 in array.shape or array.dtype.kind not in "uif":
            raise SlideError(
                f"expected pixels of numbers, got shape {array.shape} of {array.dtype} in "
                f"{self._source}"
            )

    def _shape(self, array: "zarr.Array") -> tuple[int, int]:
        y, x = (self._image.axes.index(name) for name in "yx")
        return array.shape[y], array.shape[x]

    def _chunk(self, array: "zarr.Array") -> tuple[int, int]:
        y, x = (self._image.axes.index(name) for name in "yx")
        # Of a shard, what is read by itself.
        return array.chunks[y], array.chunks[x]

    def _chosen_bands(self) -> list[int]:
        axes = self._image.axes
        count = self._arrays[0].shape[axes.index("c")] if "c" in axes else 1
        if self.multiband.is_used:
            labels = self._image.labels
            labels = list(labels) if len(labels) == count else [""] * count
            names = self.multiband.names
            return choosing.bands(self._source, names, self._config.bands, [labels])
        if self._config.bands:
            if max(self._config.bands) > count:
                raise SlideError(
                    f"expected config.data.reading.bands in 1…{count} for {self._source}, got "
                    f"{self._config.bands}"
                )
            return list(self._config.bands)
        if count == 1:
            return [1]
        if count != 3 or not self._image.is_rgb:
            colours = f" of colours {', '.join(self._image.colours)}" if count == 3 else ""
            raise SlideError(
                f"expected one channel, or red, green and blue, got {count} channels{colours} in "
                f"{self._source}: pass --config.data.reading.bands=(<numbers of three, or one>)"
            )
        return [1, 2, 3]

    def _values(
        self, level: int, top: int, left: int, height: int, width: int
    ) -> Shaped[np.ndarray, "C H W"]:
        array = self._arrays[level]
        fetch = lambda rows, columns: self._fetch(array, rows, columns)
        with self._lock, self._as_slide_error():
            return self._blocks[level].read(top, left, height, width, fetch)

    def _fetch(
        self, array: "zarr.Array", rows: slice, columns: slice
    ) -> Shaped[np.ndarray, "C H W"]:
        axes = self._image.axes
        place = {"t": 0, "z": 0, "y": rows, "x": columns}
        # In their order where all are read; one by one where some are chosen of many.
        is_all = "c" in axes and self._bands == list(range(1, array.shape[axes.index("c")] + 1))
        choices = [slice(None)] if is_all else [band - 1 for band in self._bands]
        parts = []
        for channel in choices if "c" in axes else [0]:
            index = tuple((place | {"c": channel})[name] for name in axes)
            part = np.asarray(self._answered(lambda index=index: array[index]))
            parts.append(self._upright(part, is_all))
        return np.concatenate(parts)

    def _upright(self, part: np.ndarray, has_channels: bool) -> Shaped[np.ndarray, "C H W"]:
        """With channels, rows and columns in this order, whatever that of the axes."""
        names = [name for name in self._image.axes if name in ("cyx" if has_channels else "yx")]
        wanted = "cyx" if has_channels else "yx"
        part = part.transpose([names.index(name) for name in wanted])
        return part if has_channels else part[None]

    def _check_depth(self) -> None:
        """Raise SlideError for values that the config does not bring to 8 bits."""
        dtype = self._arrays[0].dtype
        if self.multiband.is_used:
            choosing.require_fits(self._source, dtype, self.multiband, self._middle)
            return
        if dtype == np.uint8 or self._config.is_scaled:
            return
        values = self._middle()
        values = values[~np.isnan(values)] if dtype.kind == "f" else values
        if dtype == np.uint16 and pixels.uses_sixteen_bits(values):
            self._samples = samples.Samples(self._bands, top=pixels.SIXTEEN_BITS)
            return
        seen = choosing.span(values)
        raise SlideError(
            f"expected channels of 8 bits, got {dtype} with {seen} in {self._source}: pass "
            "--config.data.reading.low and --config.data.reading.high, the values that become 0 "
            "and 255"
        )

    def _middle(self) -> Shaped[np.ndarray, "C H W"]:
        """Values of the coarsest level, around its centre."""
        level = len(self.level_shapes) - 1
        height, width = self.level_shapes[level]
        h, w = min(height, _LOOK), min(width, _LOOK)
        return self._values(level, (height - h) // 2, (width - w) // 2, h, w)

    @contextlib.contextmanager
    def _as_slide_error(self) -> Iterator[None]:
        try:
            yield
        except SlideError:
            raise
        except Exception as error:  # codecs and stores have no base of their own
            raise SlideError.because(self._source, "a readable OME-Zarr image", error) from error


def _image_group(group: "zarr.Group", source: str) -> "zarr.Group":
    """The group of the image: itself, or the only one of a store of Bio-Formats. Raises SlideError
    for a store of several."""
    found = ngff.metadata(group.attrs.asdict())
    if "bioformats2raw.layout" not in found or found.get("multiscales"):
        return group
    names = _series(group)
    if len(names) == 1:
        return group[names[0]]
    if not names:
        return group
    more = ", …" if len(names) > _NAMED else ""
    raise SlideError(
        f"expected one image, got {len(names)} ({', '.join(names[:_NAMED])}{more}) in {source}: "
        f"name one of them, {source.rstrip('/')}/{names[0]}"
    )


def _series(group: "zarr.Group") -> list[str]:
    """Names of the images in a store of Bio-Formats."""
    with contextlib.suppress(KeyError):
        named = ngff.metadata(group["OME"].attrs.asdict()).get("series")
        if named:
            return [str(name) for name in named]
    names: list[str] = []
    with contextlib.suppress(KeyError):
        while True:
            _ = group[str(len(names))]
            names.append(str(len(names)))
    return names
