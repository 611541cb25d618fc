"""Records of one to eight bands: what they are called, their range, and which of them are seen."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt

from ssldiff_jax.core import bands as bands_lib

MOST_BANDS = 8
INFRARED = ("infrared", "nir", "near infrared", "near-infrared", "near_infrared", "nearinfrared")
"""Names of the band that a vegetation index needs: infrared alone is the near one wherever it
stands beside colours."""
MISSING = 0
"""Of all bands where there is no data: what rasters are marked with. The least value of data that
are generated is 1."""


def canonical(name: str) -> str:
    """One spelling of all that name the same band."""
    name = name.strip().lower()
    return "nir" if name in INFRARED else name


@dataclasses.dataclass(frozen=True)
class MultibandConfig:
    """Bands that records hold beside, or instead of, red, green and blue.

    Attributes:
        names: of one to eight bands in the order of records; none: records are RGB.
        low: values of a file that become 0, one for each band; none: 0.
        high: those that become the largest value of `bits`; none: that value.
        bits: 8 or 16, of records.
        shown: one or three names that pictures, tissue and judges see as red, green and blue; none:
            the bands called so, else the first.
        encoded: those that the encoder sees; none: `shown`.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    bits: int
    shown: tuple[str, ...]
    encoded: tuple[str, ...]

    def __post_init__(self):
        if self.bits not in (8, 16):
            raise ValueError(f"multiband.bits must be 8 or 16, got {self.bits}")
        if not self.names:
            self._require_nothing_else()
            return
        if len(self.names) > MOST_BANDS or len(set(map(canonical, self.names))) < len(self.names):
            raise ValueError(
                f"multiband.names must be one to {MOST_BANDS} names that differ, got {self.names}"
            )
        if not all(name and name.isprintable() and name == name.strip() for name in self.names):
            raise ValueError(f"multiband.names must be words, got {self.names}")
        for key in ("low", "high"):
            if len(getattr(self, key)) not in (0, len(self.names)):
                raise ValueError(
                    f"multiband.{key} must be none or a number for each of {len(self.names)} "
                    f"bands, got {getattr(self, key)}"
                )
        for name, low, high in zip(self.names, *self.ranges, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    "multiband.low must lie below high in each band, got "
                    f"low={low:g}, high={high:g} of {name}"
                )
        for key in ("shown", "encoded"):
            chosen = getattr(self, key)
            if len(chosen) not in (0, 1, 3) or not set(chosen) <= set(self.names):
                raise ValueError(
                    f"multiband.{key} must be none, one or three of {self.names}, got {chosen}"
                )

    def _require_nothing_else(self) -> None:
        said = [key for key in ("low", "high", "shown", "encoded") if getattr(self, key)]
        if said or self.bits != 8:
            raise ValueError(
                "multiband.names must name bands where other keys of multiband are set, got none "
                f"beside {', '.join(said) or f'bits={self.bits}'}"
            )

    @property
    def is_used(self) -> bool:
        """Whether records hold other bands than red, green and blue of 8 bits."""
        return bool(self.names)

    @property
    def count(self) -> int:
        """Bands of records."""
        return len(self.names) or 3

    @property
    def dtype(self) -> np.dtype:
        """Of records."""
        return np.dtype(f"uint{self.bits}")

    @property
    def top(self) -> int:
        """The largest value of records."""
        return 2**self.bits - 1

    @property
    def has_infrared(self) -> bool:
        """Whether a vegetation index can be told: there are red, green, blue and infrared."""
        return self._colours_and_infrared is not None

    def of_land(self, pixels: UInt[np.ndarray, "*S bands"]) -> Float[np.ndarray, "*S 4"]:
        """Red, green, blue and infrared as the file has them: what land cover is measured in.

        Raises ValueError where there is no such band.
        """
        places = self._colours_and_infrared
        if places is None:
            raise ValueError(
                "multiband.names must have red, green, blue and infrared (or nir), got "
                f"{self.names}"
            )
        return self.to_values(pixels)[..., places]

    @property
    def _colours_and_infrared(self) -> list[int] | None:
        names = list(map(canonical, self.names))
        wanted = ("red", "green", "blue", "nir")
        return [names.index(name) for name in wanted] if set(wanted) <= set(names) else None

    @property
    def kind(self) -> bands_lib.Kind:
        """How pixels of records, and of what is generated, are stored."""
        return bands_lib.Kind(self.count, self.dtype, MISSING + 1 if self.is_used else 0)

    @property
    def fill(self) -> int:
        """Of all bands where there is no data, and beyond the border: white of RGB."""
        return MISSING if self.is_used else 255

    @property
    def is_scaled(self) -> bool:
        """Whether a range was said, or values of files are taken as stored."""
        return bool(self.low or self.high)

    @property
    def ranges(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(low, high) of every band, values of a file that become 0 and `top`."""
        count = len(self.names)
        return self.low or (0.0,) * count, self.high or (float(self.top),) * count

    @property
    def scales(self) -> tuple[list[float], list[float]]:
        """(scale, offset) of every band, which give values of a file of records'."""
        low, high = self.ranges
        return [(b - a) / self.top for a, b in zip(low, high, strict=True)], list(low)

    @property
    def as_stored(self) -> "MultibandConfig":
        """The same without a range, of values that are records' already."""
        return dataclasses.replace(self, low=(), high=())

    @property
    def facts(self) -> dict[str, Any]:
        """What an archive says of its records: names, range and bits."""
        low, high = self.ranges
        return {"names": list(self.names), "low": list(low), "high": list(high), "bits": self.bits}

    @property
    def shown_view(self) -> bands_lib.View:
        """What pictures, tissue and judges see."""
        return self._view(self.shown)

    @property
    def encoded_view(self) -> bands_lib.View:
        """What the encoder sees."""
        return self._view(self.encoded or self.shown)

    def view_of(self, network: str) -> bands_lib.View:
        """What the `encoder` or the `judge` of a run sees."""
        return self.encoded_view if network == "encoder" else self.shown_view

    def _view(self, chosen: Sequence[str]) -> bands_lib.View:
        if not self.is_used:
            return bands_lib.RGB
        if not chosen:
            colours = ("red", "green", "blue")
            first = self.names[:3] if len(self.names) >= 3 else self.names[:1]
            chosen = colours if set(colours) <= set(self.names) else first
        places = [self.names.index(name) for name in chosen]
        red, green, blue = places if len(places) == 3 else places * 3
        return bands_lib.View((red, green, blue), self.kind)

    def to_records(
        self,
        values: Shaped[np.ndarray, "bands H W"],
        missing: Bool[np.ndarray, "H W"] | None = None,
    ) -> UInt[np.ndarray, "H W bands"]:
        """Values of a file as records hold them: `low` is 0, `high` the largest value, rounded, and
        what lies beyond is cut off. What is no number becomes 0.

        Where it is known what is `missing`, that is 0, and all else is data: 1 in all bands where
        it would be 0 in all, which stands for no data.
        """
        out = self._scaled(values)
        if missing is not None:
            out[~out.any(axis=-1)] = MISSING + 1
            out[missing] = MISSING
        return out

    def _scaled(self, values: Shaped[np.ndarray, "bands H W"]) -> UInt[np.ndarray, "H W bands"]:
        low, high = (np.array(ends)[:, None, None] for ends in self.ranges)
        out = np.empty((*values.shape[1:], len(values)), self.dtype)
        if values.dtype == self.dtype and not self.is_scaled:
            out[:] = np.moveaxis(values, 0, -1)
            return out
        scaled = (values.astype(np.float64) - low) * self.top / (high - low)
        with np.errstate(invalid="ignore"):
            whole = np.nan_to_num(np.floor(scaled + 0.5).clip(0, self.top))
        out[:] = np.moveaxis(whole, 0, -1)
        return out

    def to_values(self, records: UInt[np.ndarray, "*S bands"]) -> Shaped[np.ndarray, "*S bands"]:
        """The values of a file that records stand for, float32: what `to_records` undoes."""
        low, high = (np.array(ends) for ends in self.ranges)
        return (records * ((high - low) / self.top) + low).astype(np.float32)


NO_BANDS = MultibandConfig(names=(), low=(), high=(), bits=8, shown=(), encoded=())
"""Records are RGB."""
