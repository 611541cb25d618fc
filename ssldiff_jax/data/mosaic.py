"""Squares larger than a record, put together from records that lie side by side or overlap."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays
from ssldiff_jax.data import builder, crops, plan

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
        places: (top, left, record) of every slide, by its number, from top to bottom.
        record_px: side of a record.
    """

    records: builder.RecordSource
    places: Mapping[int, Int[np.ndarray, "N 3"]]
    record_px: int

    @classmethod
    def of(cls, records: builder.RecordSource, record_px: int) -> "Mosaic":
        """That of all records."""
        squares = records.squares()
        order = np.lexsort((squares[:, 2], squares[:, 1], squares[:, 0]))
        slides, starts = np.unique(squares[order, 0], return_index=True)
        parts = np.split(np.stack([*squares[order, 1:].T, order], axis=1), starts[1:])
        return cls(records, dict(zip(slides.tolist(), parts, strict=True)), record_px)

    def draw(self, generator: np.random.Generator, side: int) -> plan.Square:
        """A square of `side` px at a random place that records cover.

        Raises MosaicError where none is found.
        """
        slides, ends = self._ends
        for _ in range(_TRIES):
            number = generator.integers(ends[-1])
            at = int(np.searchsorted(ends, number, "right"))
            slide = slides[at]
            top, left, _ = self.places[slide][number - ends[at]]  # from its end
            # Anywhere over this record: one that is at the border of its slide counts as well.
            low, high = min(self.record_px - side, 0), max(self.record_px - side, 0)
            top, left = np.array([top, left]) + generator.integers(low, high + 1, 2)
            square = plan.Square(slide, int(top), int(left), side, side)
            if self.covers(square):
                return square
        raise MosaicError(
            f"records must lie side by side to make squares of {side} px, found none after "
            f"{_TRIES} tries in {len(slides)} slides: a smaller grid, or records closer together "
            f"(config.data.records.stride_px) or with less tissue (min_tissue), may help"
        )

    @functools.cached_property
    def _ends(self) -> tuple[list[int], Int[np.ndarray, "S"]]:
        """Slides, and up to which record, counted over all of them, each one goes."""
        slides = list(self.places)
        return slides, np.cumsum([len(self.places[slide]) for slide in slides])

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
        places, side = self.places[square.slide], self.record_px
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
