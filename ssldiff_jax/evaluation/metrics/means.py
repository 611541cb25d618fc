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
        values_there = np.array([value for value in values if value is not None], np.float64)
        if not len(values_there):
            return None
        error = (
            float(values_there.std(ddof=1) / np.sqrt(len(values_there)))
            if len(values_there) > 1
            else None
        )
        return cls(float(values_there.mean()), error, len(values_there))
