"""How the stored values of a file become RGB pixels."""

import dataclasses
import math
import pathlib
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from ssldiff_jax.slides import multiband as multiband_lib

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_PNG_DEPTH = 24  # where a PNG has its bits


@dataclasses.dataclass(frozen=True)
class ReadingConfig:
    """What to make of files that are not plain RGB of 8 bits."""

    # Bands of a raster (any TIFF, JPEG 2000) for red, green, blue, counted from 1; one is
    # repeated. None: those called so, else the first three, or the first where there are fewer.
    # Where `multiband` names bands: one for each of these.
    bands: tuple[int, ...]
    # Values of a raster that become 0 and 255; what lies beyond is cut off. Both 0:
    # bands of 8 bits as they are stored.
    low: float
    high: float
    # srgb: convert by the ICC profile of the file, where it has one.
    colour: Literal["stored", "srgb"]
    # Other bands than red, green and blue.
    multiband: multiband_lib.MultibandConfig

    def __post_init__(self):
        if self.multiband.is_used:
            self._require_bands()
        elif len(self.bands) not in (0, 1, 3) or any(band < 1 for band in self.bands):
            raise ValueError(
                f"bands must be none, one or three numbers from 1 up, got bands={self.bands}"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low and high must be finite, got low={self.low}, high={self.high}")
        if self.is_scaled and not self.low < self.high:
            raise ValueError(f"low must lie below high, got low={self.low}, high={self.high}")
        if self.colour not in ("stored", "srgb"):
            raise ValueError(f"colour must be stored or srgb, got colour={self.colour!r}")

    def _require_bands(self) -> None:
        names = self.multiband.names
        if len(self.bands) not in (0, len(names)) or any(band < 1 for band in self.bands):
            raise ValueError(
                f"bands must be none or a number from 1 up for each of {', '.join(names)}, got "
                f"bands={self.bands}"
            )
        if self.is_scaled or self.colour != "stored":
            raise ValueError(
                "low, high and colour must be left as they are where multiband names bands, which "
                f"has a range for each, got low={self.low}, high={self.high}, colour={self.colour}"
            )

    @property
    def facts(self) -> tuple[Any, ...]:
        """All that it says, for digests; without `multiband` where that says nothing, so that what
        was made before it was there keeps its name."""
        *facts, multiband = dataclasses.astuple(self)
        return (*facts, multiband) if self.multiband.is_used else tuple(facts)

    @property
    def is_scaled(self) -> bool:
        """Whether values are mapped, or taken as stored."""
        return self.low != 0 or self.high != 0

    def to_8_bits(self, values: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
        """Values between `low` and `high` as 0…255, rounded; 8 bits as they are without a range.
        What is no number becomes 0."""
        if not self.is_scaled:
            return values
        scaled = (values.astype(np.float64) - self.low) * 255 / (self.high - self.low)
        return np.nan_to_num(np.floor(scaled + 0.5).clip(0, 255)).astype(np.uint8)

    @property
    def is_of_rasters(self) -> bool:
        """Whether it says something that no picture has: other bands, or another range."""
        return bool(self.bands) or self.is_scaled

    def of_picture(self, path: pathlib.Path) -> "ReadingConfig":
        """The same without bands and range for a picture of 8 bits (PNG, JPEG, WebP, BMP), as tools
        write them: it holds colours already."""
        if not (self.is_of_rasters and _is_picture(path)):
            return self
        return dataclasses.replace(self, bands=(), low=0.0, high=0.0)


def _is_picture(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return False
    if head.startswith(_PNG):
        return head[_PNG_DEPTH : _PNG_DEPTH + 1] != b"\x10"
    return head.startswith((_JPEG, _BMP)) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")


AS_STORED = ReadingConfig((), 0.0, 0.0, "stored", multiband_lib.NO_BANDS)
