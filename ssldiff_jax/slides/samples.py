"""What the numbers in a raster mean: which bands are colours, tables of them, transparency."""

import dataclasses
import pathlib
from typing import Literal

import numpy as np
import rasterio
from jaxtyping import Bool, Shaped, UInt8
from rasterio import windows
from rasterio.enums import ColorInterp

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import choosing, pixels, reading, tiff, warn
from ssldiff_jax.slides import multiband as multiband_lib
from ssldiff_jax.slides.protocol import SlideError

_COLOURS = ("red", "green", "blue")
_LOOKS, _LOOK = 8, 64  # windows looked at a side of the image, and their side, px
_OPAQUE = 0.95  # part of what is not 0 in a mask that is full

Alpha = Literal["mask", "straight", "premultiplied"]


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """How values of a file become RGB, or bands of a record.

    Attributes:
        bands: those that are read: one or three, or as many as a config names.
        table: RGBA by value, for a band of indices.
        is_inverted: whether 0 is white.
        top: the value that is white.
        alpha: number of a band that marks what is transparent; 0: none.
        alpha_kind: a mask (0 is no data), or transparency that colours are multiplied with or not.
        says_missing: whether the file says what no data is, so that all else is data.
        is_of_records: whether values are those of records already, whatever range is named.
    """

    bands: list[int]
    table: UInt8[np.ndarray, "N 4"] | None = None
    is_inverted: bool = False
    top: float = 255
    alpha: int = 0
    alpha_kind: Alpha = "mask"
    says_missing: bool = False
    is_of_records: bool = False

    def decoded(
        self,
        values: Shaped[np.ndarray, "C H W"],
        missing: Bool[np.ndarray, "H W"],
        config: reading.ReadingConfig,
    ) -> arrays.Pixels:
        """Colours of values, or the bands that the config names; what is `missing` has any."""
        if config.multiband.is_used:
            multiband = config.multiband.as_stored if self.is_of_records else config.multiband
            return multiband.to_records(values, missing if self.says_missing else None)
        if self.table is not None:
            return self.table[np.minimum(values[0], len(self.table) - 1)][..., :3]
        if config.is_scaled:
            # What is missing, NaN or far outside, is painted white by the caller.
            values = config.to_8_bits(np.where(missing, config.low, values))
        elif self.top != 255:
            values = np.floor(values.astype(np.float64) * 255 / self.top + 0.5)
        rgb = np.empty((*missing.shape, 3), np.uint8)
        rgb[:] = np.moveaxis(values, 0, -1)  # one band is repeated
        return 255 - rgb if self.is_inverted else rgb

    def is_transparent(self, values: Shaped[np.ndarray, "C H W"]) -> Bool[np.ndarray, "H W"]:
        """Where the table of colours says that there is nothing."""
        return self.table[np.minimum(values[0], len(self.table) - 1)][..., 3] == 0

    def on_white(
        self,
        rgb: UInt8[np.ndarray, "H W 3"],
        alpha: Shaped[np.ndarray, "H W"],
        config: reading.ReadingConfig,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Blend colours over white by transparency."""
        full = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1.0
        if config.is_scaled and alpha.dtype != np.uint8:
            # Of 12 bits in 16, transparency is full where colours are.
            full = min(full, config.high)
        part = (alpha / full).clip(0, 1)[..., None]
        premultiplied = rgb if self.alpha_kind == "premultiplied" else rgb * part
        return (
            np.floor(premultiplied + pixels.WHITE * (1 - part) + 0.5).clip(0, 255).astype(np.uint8)
        )


def of(
    path: pathlib.Path,
    file: rasterio.DatasetReader,
    config: reading.ReadingConfig,
    layout: tiff.Layout | None,
) -> Samples:
    """What the bands of a file mean; `layout` is None for a georeferenced one.

    Raises SlideError where that cannot be decided, or the config names what is not there.
    """
    if config.multiband.is_used:
        return _of_many(path, file, config)
    bands = _bands(path, file, config, layout)
    structure = file.tags(ns="IMAGE_STRUCTURE")
    is_inverted = structure.get("MINISWHITE") == "YES"
    colours = None if is_inverted else _table(path, file, bands, config)
    bits = int(file.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
    # GDAL gives fewer bits as they are, in bytes.
    top = 2**bits - 1 if bits < 8 else 255.0
    alpha, kind = _alpha(path, file, bands, layout)
    return Samples(bands, colours, is_inverted, top, alpha, kind)


def _of_many(
    path: pathlib.Path, file: rasterio.DatasetReader, config: reading.ReadingConfig
) -> Samples:
    """The bands that a config names; alpha is a mask, where it looks like one."""
    described = [text or "" for text in file.descriptions]
    marked = [c.name for c in file.colorinterp]
    bands = choosing.bands(path, config.multiband.names, config.bands, [described, marked])
    is_inverted = file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
    if is_inverted or table(file, bands[0]) is not None:
        kind = "greys of which 0 is white" if is_inverted else "indices of a table of colours"
        raise SlideError(f"expected bands of measured values, got {kind} in {path}")
    alpha = marked.index("alpha") + 1 if "alpha" in marked else 0
    # GDAL marks the fourth of any four bands of bytes so.
    is_data = alpha and described[alpha - 1].strip().lower() not in ("", "alpha")
    is_of_records = _is_of_records(file, bands, config.multiband)
    if is_data or (alpha in bands and config.bands):
        return Samples(bands, is_of_records=is_of_records)
    mask, _ = _alpha(path, file, [band for band in bands if band != alpha], None)
    if mask in bands:
        raise SlideError(
            f"expected {len(bands)} bands ({', '.join(config.multiband.names)}), got "
            f"{file.count - 1} and a mask, band {mask}, in {path}"
        )
    return Samples(bands, alpha=mask, is_of_records=is_of_records)


def _is_of_records(
    file: rasterio.DatasetReader, bands: list[int], multiband: multiband_lib.MultibandConfig
) -> bool:
    """Whether scale and offset of bands say that their values are what the range makes of a
    source's, as those of images are that were generated."""
    chosen = [band - 1 for band in bands]
    said = [[which[band] for band in chosen] for which in (file.scales, file.offsets)]
    if {file.dtypes[band] for band in chosen} != {multiband.dtype.name}:
        return False
    # Up to the digits that a file has of them.
    return np.allclose(said, multiband.scales, rtol=1e-9, atol=0)


def _bands(
    path: pathlib.Path,
    file: rasterio.DatasetReader,
    config: reading.ReadingConfig,
    layout: tiff.Layout | None,
) -> list[int]:
    """One or three bands."""
    if config.bands:
        if max(config.bands) > file.count:
            raise SlideError(
                f"expected config.data.reading.bands in 1…{file.count} for {path}, got "
                f"{config.bands}"
            )
        return list(config.bands)
    named = named_bands(path, file)
    if named:
        return named
    colours = sum(c is not ColorInterp.alpha for c in file.colorinterp)
    if layout is not None and (colours == 2 or (colours > 1 and layout.names_colours)):
        raise SlideError(
            f"expected one channel, or red, green and blue, got {colours} channels in {path}: pass "
            "--config.data.reading.bands=(<numbers of three, or one>)"
        )
    if file.count > 3:
        warn.once(f"{path}: bands 1, 2 and 3 of {file.count} are used as red, green and blue")
    return [1, 2, 3] if file.count >= 3 else [1]


def named_bands(path: pathlib.Path, file: rasterio.DatasetReader) -> list[int]:
    """The bands called red, green and blue; none where no band has such a name.

    Raises SlideError where names contradict the order that is taken without them.
    """
    described = [(text or "").strip().lower() for text in file.descriptions]
    marked = [c.name for c in file.colorinterp]
    by_description, by_mark = _numbers(described), _numbers(marked)
    if by_description and by_mark and by_description != by_mark:
        warn.once(
            f"{path}: bands {by_description} are described as red, green and blue, and marked as "
            f"bands {by_mark}: the description is used"
        )
    if not (by_description or by_mark):
        _require_order(path, described)
        _require_order(path, marked)
    return by_description or by_mark


def _numbers(names: list[str]) -> list[int]:
    """The bands called red, green and blue, where each is called so once."""
    is_whole = all(names.count(colour) == 1 for colour in _COLOURS)
    return [names.index(colour) + 1 for colour in _COLOURS] if is_whole else []


def _require_order(path: pathlib.Path, names: list[str]) -> None:
    wrong = [
        f"{number} is {name}"
        for number, name in enumerate(names, 1)
        if name in _COLOURS and len(names) >= 3 and _COLOURS.index(name) + 1 != number
    ]
    if wrong:
        raise SlideError(
            f"expected bands called red, green and blue in {path}, got {', '.join(wrong)}: "
            "pass --config.data.reading.bands=(<red>,<green>,<blue>)"
        )


def _table(
    path: pathlib.Path,
    file: rasterio.DatasetReader,
    bands: list[int],
    config: reading.ReadingConfig,
) -> UInt8[np.ndarray, "N 4"] | None:
    colours = table(file, bands[0]) if len(bands) == 1 else None
    if colours is None:
        return None
    if config.is_scaled:
        raise SlideError(
            f"expected no config.data.reading.low and high for {path}, whose values are indices of "
            f"a table of colours, got {config.low:g} and {config.high:g}"
        )
    rgba_table = np.zeros((max(colours) + 1, 4), np.uint8)
    for value, rgba in colours.items():
        rgba_table[value] = rgba
    return rgba_table


def table(file: rasterio.DatasetReader, band: int = 1) -> dict[int, tuple[int, ...]] | None:
    """The table of colours of a band, RGBA by value, if it has one."""
    try:
        return file.colormap(band)
    except ValueError:
        return None


def _alpha(
    path: pathlib.Path,
    file: rasterio.DatasetReader,
    bands: list[int],
    layout: tiff.Layout | None,
) -> tuple[int, Alpha]:
    """Which band is transparency, and of which kind.

    Of a georeferenced raster only if it looks like a mask: what sensors see beyond red is often
    called alpha.
    """
    names = list(file.colorinterp)
    number = names.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in names else 0
    if not number or number in bands:
        return 0, "mask"
    if layout is not None:
        return number, layout.alpha or "straight"
    values = _some(file, number)
    nonzero, full = (
        values[values != 0],
        np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1,
    )
    # Without a 0 it would mask nothing, with nothing else all.
    if values.all() or not len(nonzero):
        return 0, "mask"
    # Masks of 16 bits are full at 255 or at 65535.
    is_mask = np.isin(nonzero, (255, full)).mean() >= _OPAQUE
    kind = "a mask: no data where it is 0" if is_mask else "no mask: data"
    warn.once(f"{path}: band {number}, called alpha, is {kind}")
    return (number if is_mask else 0), "mask"


def _some(file: rasterio.DatasetReader, band: int) -> Shaped[np.ndarray, "N"]:
    """Values of a band from all over the image."""
    height, width = (min(n, _LOOK) for n in file.shape)
    tops, lefts = (
        np.unique(np.linspace(0, n - size, _LOOKS).astype(int)).tolist()
        for n, size in zip(file.shape, (height, width), strict=True)
    )
    places = [windows.Window(left, top, width, height) for top in tops for left in lefts]
    return np.concatenate([file.read(band, window=window).ravel() for window in places])
