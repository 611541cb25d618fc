"""Separable resampling whose result does not depend on where a region begins.

Every output pixel is a fixed weighted sum of source pixels in absolute coordinates, so two
neighbouring regions join exactly as if they had been read in one piece.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt

from ssldiff_jax.slides import pixels

if TYPE_CHECKING:
    from scipy import sparse

_NONE, _WHOLE = 1e-5, 1e-5  # a sum of weights that is 0, and how near to 1 one is 1


@dataclasses.dataclass(frozen=True, eq=False)
class AxisPlan:
    """How `count` output pixels of one axis arise from source pixels `start … stop − 1`.

    `matrix` is (count, stop − start); `coverage` (count,) is the part of each output pixel that
    lies on the slide, in 0…1. The rest of it is filled.
    """

    start: int
    stop: int
    matrix: "sparse.csr_matrix"
    coverage: np.ndarray


def plan_axis(first: int, count: int, *, factor: float, size: int, extent: float) -> AxisPlan:
    """Plan output pixels `first … first + count − 1` of one axis.

    `factor` is source pixels per output pixel: box (area) weights from 1 up, bicubic below 1.
    `size` is the number of source pixels; `extent` the true length of the axis in source pixels,
    which is a fraction more than `size` where a pyramid level was rounded down: its last pixel
    then stands for the rest.
    """
    # Not at the top: a machine that only computes need not have it.
    from scipy import sparse

    index = np.arange(first, first + count)
    taps, weights = _box(index, factor, extent) if factor >= 1 else _cubic(index, factor, extent)
    coverage = weights.sum(axis=1)
    # The border's pixels stand for their neighbours beyond, which bicubic taps reach.
    taps = np.clip(taps, 0, size - 1)
    # Pixels of weight 0 are not read: they may lie beyond a border, or in another tile.
    used = taps[weights != 0]
    start, stop = (int(used.min()), int(used.max()) + 1) if used.size else (0, 0)
    columns = np.clip(taps - start, 0, max(stop - start - 1, 0))
    row_starts = np.arange(count + 1) * taps.shape[1]
    matrix = sparse.csr_matrix(
        (weights.astype(np.float32).ravel(), columns.ravel(), row_starts),
        shape=(count, max(stop - start, 1)),
    )
    return AxisPlan(start, stop, matrix, coverage)


def apply(
    source: UInt[np.ndarray, "rows columns bands"],
    rows: AxisPlan,
    columns: AxisPlan,
    *,
    fill: int = pixels.WHITE,
) -> UInt[np.ndarray, "H W bands"]:
    """Resample the source pixels both plans ask for; parts beyond the slide become `fill`."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    channels = source.shape[-1]
    shape = (len(rows.coverage), len(columns.coverage), channels)
    if height < 1 or width < 1:
        return np.full(shape, fill, source.dtype)
    values = rows.matrix @ source.reshape(height, width * channels).astype(np.float32)
    values = values.reshape(shape[0], width, channels).transpose(1, 0, 2).reshape(width, -1)
    values = columns.matrix @ values
    values = values.reshape(shape[1], shape[0], channels).transpose(1, 0, 2)
    beyond = 1 - rows.coverage[:, None] * columns.coverage[None, :]
    values = values + (fill * beyond[..., None]).astype(np.float32)
    top = np.iinfo(source.dtype).max
    return np.clip(np.floor(values + 0.5), 0, top).astype(source.dtype)


def of_present(
    source: UInt[np.ndarray, "rows columns bands"],
    rows: AxisPlan,
    columns: AxisPlan,
    *,
    says_missing: bool,
) -> UInt[np.ndarray, "H W bands"]:
    """The same of those pixels alone that have data: their mean, or 0 in all bands where there are
    none; between pixels where they are less than half. What lies beyond the slide has none, nor,
    if the source `says_missing`, has what is 0 in all bands; a mean of data is then not 0 in all.
    """
    count = source.shape[-1]
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return np.zeros((len(rows.coverage), len(columns.coverage), count), source.dtype)
    present = source.any(axis=-1) if says_missing else np.ones(source.shape[:2], bool)
    values = np.concatenate([source, present[..., None]], -1, dtype=np.float32)
    weighted = np.stack(
        [rows.matrix @ values[..., band] @ columns.matrix.T for band in range(count + 1)], -1
    )
    weight = weighted[..., -1:]
    # What is whole is not divided: its weights are 1 but for their last digits.
    weight = np.where(np.abs(weight - 1) < _WHOLE, np.float32(1), weight)
    # Bicubic weights, which alone may be negative, say little where half of them is not there.
    is_cubic = any(plan.matrix.data.min(initial=0) < 0 for plan in (rows, columns))
    has_data = weight > (0.5 if is_cubic else _NONE)
    means = weighted[..., :-1] / np.where(has_data, weight, np.inf)
    out = np.clip(np.floor(means + 0.5), 0, np.iinfo(source.dtype).max).astype(source.dtype)
    if says_missing:
        out[has_data[..., 0] & ~out.any(axis=-1)] = 1
    return out


def _box(index: np.ndarray, factor: float, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Taps and weights (count, taps): the overlap of each output pixel with each source pixel."""
    low, high = (np.clip(edge * factor, 0, extent) for edge in (index, index + 1))
    # One more than its length: an output pixel may begin inside a source pixel.
    taps = np.floor(low).astype(np.int64)[:, None] + np.arange(math.ceil(factor) + 1)
    overlap = np.minimum(high[:, None], taps + 1) - np.maximum(low[:, None], taps)
    return taps, np.maximum(overlap, 0) / factor


def _cubic(index: np.ndarray, factor: float, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Taps and weights (count, 4): Keys 1981, a = −0.5; none where the centre is off the slide."""
    centre = (index + 0.5) * factor
    nearest_left = np.floor(centre - 0.5).astype(np.int64)
    taps = nearest_left[:, None] + np.arange(-1, 3)
    x = np.abs(centre[:, None] - 0.5 - taps)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    inside = (centre >= 0) & (centre < extent)
    return taps, weights * inside[:, None]
