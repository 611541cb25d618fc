"""Numbers known beforehand, each with whether it is exact or, if not, where it comes from and how
far it may be off."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.stats

_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number. `source` is "" where it is exact, else what it comes from; then `low` and `high`
    hold it with 95 %, as far as that is known (nan where it is not)."""

    value: float
    source: str = ""
    low: float = math.nan
    high: float = math.nan

    @property
    def is_exact(self) -> bool:
        """Whether it is arithmetic."""
        return not self.source

    def __mul__(self, factor: "float | Estimate") -> "Estimate":
        if isinstance(factor, Estimate):
            if factor.is_exact:
                return self * factor.value
            if self.is_exact:
                return factor * self.value
            low, high = self._bounds, factor._bounds
            both = _joined([self, factor])
            return Estimate(self.value * factor.value, both, low[0] * high[0], low[1] * high[1])
        if self.is_exact:
            return Estimate(self.value * factor)
        return dataclasses.replace(
            self, value=self.value * factor, low=self.low * factor, high=self.high * factor
        )

    def __add__(self, other: "Estimate") -> "Estimate":
        return total([self, other])

    @property
    def _bounds(self) -> tuple[float, float]:
        return (self.value, self.value) if self.is_exact else (self.low, self.high)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Estimate":
        """As `as_json` wrote it."""
        value = math.nan if stored["value"] is None else stored["value"]
        if stored["basis"] == "exact":
            return cls(value)
        bounds = (stored.get(key, math.nan) for key in ("low", "high"))
        return cls(value, stored["from"], *bounds)

    def as_json(self) -> dict[str, Any]:
        """For a stranger: its value, "exact" or "estimate", and of an estimate whence and between
        what."""
        if self.is_exact:
            return {"value": _plain(self.value), "basis": "exact"}
        about = {"value": _plain(self.value), "basis": "estimate", "from": self.source}
        if math.isfinite(self.low) and math.isfinite(self.high):
            about |= {"low": _plain(self.low), "high": _plain(self.high)}
        return about


def total(parts: Iterable[Estimate]) -> Estimate:
    """The sum; bounds add up, as what is unknown may be unknown for one reason."""
    parts = list(parts)
    value = sum(part.value for part in parts)
    if all(part.is_exact for part in parts):
        return Estimate(value)
    low, high = (sum(part._bounds[i] for part in parts) for i in (0, 1))
    return Estimate(value, _joined(parts), low, high)


def of_mean(sample: Iterable[float], count: int, source: str) -> Estimate:
    """The sum over `count` things, of which a random sample was measured; exact where that is all
    of them. Student's t for means of samples without replacement (Cochran 1977, 2.5)."""
    values = np.array(list(sample), float)
    if len(values) >= count:
        return Estimate(float(values.sum()))
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(count * mean, source)
    error = values.std(ddof=1) / math.sqrt(len(values)) * math.sqrt(1 - len(values) / count)
    reach = float(scipy.stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1) * error)
    return Estimate(count * mean, source, max(count * (mean - reach), 0.0), count * (mean + reach))


def of_share(hits: int, looked_at: int, count: int, source: str) -> Estimate:
    """How many of `count` are so, of which `looked_at` were looked at (Clopper and Pearson
    1934)."""
    if looked_at >= count:
        return Estimate(hits)
    tail, beta = (1 - _LEVEL) / 2, scipy.stats.beta
    low = beta.ppf(tail, hits, looked_at - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, looked_at - hits) if hits < looked_at else 1.0
    return Estimate(count * hits / looked_at, source, count * float(low), count * float(high))


def _joined(parts: list[Estimate]) -> str:
    """Where all of them come from, each said once."""
    return "; ".join(dict.fromkeys(part.source for part in parts if part.source))


def _plain(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.6g}")
