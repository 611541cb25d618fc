"""Squares larger than a record, put together from records that lie side by side or overlap."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.data import crops, plan
from ssldiff_jax.data import records as records_lib

_TRIES = 200

_Part = tuple[slice, slice, tuple[int, int, int]]
"""Rows and columns of a square that a record covers, and its (top, left, number)."""


class MosaicError(ValueError):
    """Records that do not cover what is asked for."""


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """The pixels of slides that records cover.

    Attributes:
        records: where pixels come from.
        record_px: side of a record.
    """

    records: records_lib.RecordSource
    record_px: int

    def places(self, slide: int) -> Int[np.ndarray, "N 3"]:
        """(top, left, record) of a slide, from top to bottom.

        Raises MosaicError where it has no records.
        """
        numbers, ends = self.records.slides[:, 0], self._ends
        at = int(np.searchsorted(numbers, slide))
        if at == len(numbers) or numbers[at] != slide:
            raise MosaicError(f"expected one of the slides with records, got slide {slide}")
        start = int(ends[at - 1]) if at else 0
        here = self.records.places[start : ends[at], 1:3]
        return np.column_stack([here, np.arange(start, ends[at])])

    def draw(self, generator: np.random.Generator, side: int) -> plan.Square:
        """A square of `side` px at a random place that records cover.

        Raises MosaicError where none is found.
        """
        for _ in range(_TRIES):
            number = int(generator.integers(len(self.records)))
            slide, top, left, _ = self.records.places[number].tolist()
            # Anywhere over this record: one that is at the border of its slide counts as well.
            low, high = min(self.record_px - side, 0), max(self.record_px - side, 0)
            top, left = np.array([top, left]) + generator.integers(low, high + 1, 2)
            square = plan.Square(slide, int(top), int(left), side, side)
            if self.covers(square):
                return square
        raise MosaicError(
            f"records must lie side by side to make squares of {side} px, found none after "
            f"{_TRIES} tries in {len(self.records.slides)} slides: a smaller grid, or records "
            "closer together (config.data.records.stride_px) or with less tissue (min_tissue), may "
            "help"
        )

    @functools.cached_property
    def _ends(self) -> Int[np.ndarray, "S"]:
        """Up to which record, counted over all of them, each slide goes."""
        return np.cumsum(self.records.slides[:, 1])

    def covers(self, square: plan.Square) -> bool:
        """Whether records cover all of a square."""
        return self._cover(square) is not None

    def read(self, square: plan.Square) -> arrays.ImageUint8:
        """The pixels of a square.

        Raises MosaicError where records do not cover it.
        """
        parts = self._cover(square)
        if parts is None:
            raise MosaicError(f"no records cover all of {square}")
        out = np.zeros((square.height, square.width, 3), np.uint8)
        for rows, cols, (top, left, number) in parts:
            record = self.records[number]
            out[rows, cols] = record[
                square.top + rows.start - top : square.top + rows.stop - top,
                square.left + cols.start - left : square.left + cols.stop - left,
            ]
        return out

    def _cover(self, square: plan.Square) -> list[_Part] | None:
        """A few records that cover a square together, None where all of them do not: for the
        first pixel without one, the record that reaches furthest beyond it."""
        places, side = self.places(square.slide), self.record_px
        first = np.searchsorted(places[:, 0], square.top - side, "right")
        last = np.searchsorted(places[:, 0], square.top + square.height, "left")
        near = places[first:last] - [square.top, square.left, 0]
        seen, found = np.zeros((square.height, square.width), bool), []
        while not seen.all():
            row, col = np.unravel_index(np.argmin(seen), seen.shape)
            tops, lefts, _ = near.T
            over = (tops <= row) & (row < tops + side) & (lefts <= col) & (col < lefts + side)
            if not over.any():
                return None
            top, left, number = max(near[over].tolist())
            rows, cols = _overlap(top, side, square.height), _overlap(left, side, square.width)
            seen[rows, cols] = True
            found.append((rows, cols, (top + square.top, left + square.left, number)))
        return found


def _overlap(start: int, side: int, size: int) -> slice:
    return slice(max(start, 0), min(start + side, size))


@dataclasses.dataclass(frozen=True)
class Region:
    """A square of `cells` × `cells`, turned, and the `grid` × `grid` cells of it that are looked
    at, first at (row, col) after it is turned."""

    square: plan.Square
    orientation: int
    row: int
    col: int
    cells: int


@dataclasses.dataclass(frozen=True)
class RegionTable:
    """Region i: a function of the seed and i.

    Attributes:
        mosaic: what is drawn from.
        count: how many there are.
        cell_px: side of a cell.
        grid: cells on the side of what is looked at.
        most_cells: on the side of the whole.
        dihedral: whether they are turned.
        seed: of the draws.
    """

    mosaic: Mosaic
    count: int
    cell_px: int
    grid: int
    most_cells: int
    dihedral: bool
    seed: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Region:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        cells = int(generator.integers(self.grid, self.most_cells + 1))
        square = self.mosaic.draw(generator, cells * self.cell_px)
        orientation = int(generator.integers(8)) if self.dihedral else 0
        row, col = generator.integers(0, cells - self.grid + 1, 2).tolist()
        return Region(square, orientation, row, col, cells)

    def read(self, region: Region) -> arrays.ImageUint8:
        """The pixels of the whole, turned."""
        return crops.orient(self.mosaic.read(region.square), region.orientation)
