"""Means over what a figure was measured on, with their standard errors."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean of independent values.

    Attributes:
        value: the mean.
        error: its standard error; None of one value.
        count: how many values.
    """

    value: float
    error: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Mean | None":
        """The mean of the values that are there; None of none."""
        known = np.array([value for value in values if value is not None], np.float64)
        if not len(known):
            return None
        error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None
        return cls(float(known.mean()), error, len(known))
