"""How the stored values of a file become RGB pixels."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ReadingConfig:
    """What to make of files that are not plain RGB of 8 bits."""

    # Bands of a georeferenced raster for red, green, blue, counted from 1; one is repeated. None:
    # the first three, or the first where there are fewer.
    bands: tuple[int, ...] = ()
    # Values of a georeferenced raster that become 0 and 255; what lies beyond is cut off. Both 0:
    # bands of 8 bits as they are stored.
    low: float = 0.0
    high: float = 0.0
    # srgb: convert by the ICC profile of the file, where it has one.
    colour: Literal["stored", "srgb"] = "stored"

    def __post_init__(self):
        if len(self.bands) not in (0, 1, 3) or any(band < 1 for band in self.bands):
            raise ValueError(
                f"bands must be none, one or three numbers from 1 up, got bands={self.bands}"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low and high must be finite, got low={self.low}, high={self.high}")
        if self.is_scaled and not self.low < self.high:
            raise ValueError(f"low must lie below high, got low={self.low}, high={self.high}")
        if self.colour not in ("stored", "srgb"):
            raise ValueError(f"colour must be stored or srgb, got colour={self.colour!r}")

    @property
    def is_scaled(self) -> bool:
        """Whether values are mapped, or taken as stored."""
        return self.low != 0 or self.high != 0


AS_STORED = ReadingConfig()
