"""Squares larger than a record, put together from records that lie side by side or overlap."""

import bisect
import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.data import crops, plan
from ssldiff_jax.data import records as records_lib

# Where few places are covered, random ones miss: after so many it is given up.
_TRIES = 200
_LOOKED_AT = 64  # regions, before it is said that there are none

_Part = tuple[slice, slice, tuple[int, int, int]]
"""Rows and columns of a square that a record covers, and its (top, left, number)."""


class MosaicError(ValueError):
    """Records that do not cover the requested square."""


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
        here = self._numbers(slide)
        return np.column_stack([self.records.places[here.start : here.stop, 1:3], here])

    def _numbers(self, slide: int) -> range:
        """The records of a slide."""
        numbers, ends = self.records.slides[:, 0], self._ends
        at = int(np.searchsorted(numbers, slide))
        if at == len(numbers) or numbers[at] != slide:
            raise MosaicError(f"expected one of the slides with records, got slide {slide}")
        return range(int(ends[at - 1]) if at else 0, int(ends[at]))

    def find(self, generator: np.random.Generator, side: int) -> plan.Square | None:
        """A square of `side` px at a random place that records cover; None where none was found
        after some tries: records lie scattered, or there are few such places."""
        for _ in range(_TRIES):
            # A record and not a slide: slides count by the tissue that they have.
            number = int(generator.integers(len(self.records)))
            slide, top, left, _ = self.records.places[number].tolist()
            # Anywhere over this record: one that is at the border of its slide counts as well.
            low, high = min(self.record_px - side, 0), max(self.record_px - side, 0)
            top, left = np.array([top, left]) + generator.integers(low, high + 1, 2)
            square = plan.Square(slide, int(top), int(left), side, side)
            if self.covers(square):
                return square
        return None

    @functools.cached_property
    def _ends(self) -> Int[np.ndarray, "S"]:
        """Up to which record, counted over all of them, each slide goes."""
        return np.cumsum(self.records.slides[:, 1])

    def covers(self, square: plan.Square) -> bool:
        """Whether records cover all of a square."""
        return self._cover(square) is not None

    def read(self, square: plan.Square) -> arrays.Pixels:
        """The pixels of a square.

        Raises MosaicError where records do not cover it.
        """
        parts = self._cover(square)
        if parts is None:
            raise MosaicError(f"no records cover all of {square}")
        size = square.height, square.width
        out = np.zeros((*size, self.records.num_bands), self.records.dtype)
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
        near, side = self._near(square), self.record_px
        # Between borders of records all pixels are alike: one of each such block is looked at.
        rows, cols = (
            np.unique(np.clip([0, size, *starts, *(starts + side)], 0, size))
            for starts, size in ((near[:, 0], square.height), (near[:, 1], square.width))
        )
        covered, parts = np.zeros((len(rows) - 1, len(cols) - 1), bool), []
        starts = [(top, left, number) for top, left, number in near.tolist()]
        while not covered.all():
            # The first block, in reading order, that is not covered.
            at_row, at_col = divmod(int(covered.argmin()), covered.shape[1])
            row, col = int(rows[at_row]), int(cols[at_col])
            over = [p for p in starts if p[0] <= row < p[0] + side and p[1] <= col < p[1] + side]
            if not over:
                return None
            top, left, number = max(over)
            part = _overlap(top, side, square.height), _overlap(left, side, square.width)
            blocks = (
                slice(*np.searchsorted(borders, (over.start, over.stop)))
                for borders, over in zip((rows, cols), part, strict=True)
            )
            covered[tuple(blocks)] = True
            parts.append((*part, (top + square.top, left + square.left, number)))
        return parts

    def _near(self, square: plan.Square) -> Int[np.ndarray, "N 3"]:
        """(top, left, number) of the records that a square touches, from its corner."""
        here, side = self._numbers(square.slide), self.record_px
        # Searched where they lie: a copy of a slide's places would cost more than all else.
        tops = self.records.places[here.start : here.stop, 1]
        first = here.start + bisect.bisect_right(tops, square.top - side)
        last = here.start + bisect.bisect_left(tops, square.top + square.height)
        corners = np.asarray(self.records.places[first:last, 1:3], np.int64)
        near = np.empty((last - first, 3), np.int64)
        # Rows are searched, columns looked through: records are sorted from top to bottom alone.
        near[:, :2], near[:, 2] = corners - [square.top, square.left], range(first, last)
        return near[(near[:, 1] > -side) & (near[:, 1] < square.width)]


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
    """Region i: a function of the seed and i. Where no place was found for it there is none.

    Attributes:
        mosaic: the records.
        count: how many are looked for.
        cell_px: side of a cell.
        grid: cells on the side of what is looked at.
        max_cells: on the side of the whole.
        dihedral: whether they are turned.
        seed: of the random places.
    """

    mosaic: Mosaic
    count: int
    cell_px: int
    grid: int
    max_cells: int
    dihedral: bool
    seed: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Region | None:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        cells = int(generator.integers(self.grid, self.max_cells + 1))
        square = self.mosaic.find(generator, cells * self.cell_px)
        if square is None:
            return None
        orientation = int(generator.integers(8)) if self.dihedral else 0
        row, col = generator.integers(0, cells - self.grid + 1, 2).tolist()
        return Region(square, orientation, row, col, cells)

    def among(self, numbers: Iterable[int]) -> Iterator[tuple[int, Region]]:
        """Those of some numbers that there are, with their number."""
        for number in numbers:
            if (region := self[number]) is not None:
                yield number, region

    def require_some(self) -> None:
        """Look for a few regions; raises MosaicError where there is none."""
        looked_at = min(_LOOKED_AT, len(self))
        if next(self.among(range(looked_at)), None) is None:
            least, most = self.grid * self.cell_px, self.max_cells * self.cell_px
            raise MosaicError(
                f"records must lie side by side to make squares of {least} to {most} px, found "
                f"none after {looked_at * _TRIES} tries in {len(self.mosaic.records.slides)} "
                "slides: a smaller grid, or records closer together "
                "(config.data.records.stride_px) or with less tissue (min_tissue), may help"
            )

    def read(self, region: Region) -> arrays.Pixels:
        """The pixels of the whole, turned."""
        return crops.orient(self.mosaic.read(region.square), region.orientation)

    def read_grid(self, region: Region) -> arrays.Pixels:
        """The pixels of the cells that are looked at, turned; no others are decoded."""
        # Where they lie before the whole is turned: turn the numbers of its cells.
        turned = crops.orient(
            np.arange(region.cells**2).reshape(region.cells, region.cells), region.orientation
        )
        window = turned[region.row : region.row + self.grid, region.col : region.col + self.grid]
        row, col = (window // region.cells).min(), (window % region.cells).min()
        px, whole = self.cell_px, region.square
        square = dataclasses.replace(
            whole,
            top=whole.top + int(row) * px,
            left=whole.left + int(col) * px,
            height=self.grid * px,
            width=self.grid * px,
        )
        return crops.orient(self.mosaic.read(square), region.orientation)
