"""Regions as a prior learns them: pixels of cells, and the condition of the whole."""

import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Iterable

import numpy as np
from jaxtyping import Float, UInt

from ssldiff_jax.core import patch_grid
from ssldiff_jax.data import ahead, mosaic
from ssldiff_jax.data.annotations import captions
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import region_labels


@dataclasses.dataclass(frozen=True)
class LabelledRegion:
    """A region.

    Attributes:
        cells: those that are looked at, in reading order.
        place: where they lie in the whole.
        annotation: the condition of the whole.
    """

    cells: UInt[np.ndarray, "N s s bands"]
    place: Float[np.ndarray, "1 4"]
    annotation: region_labels.RegionAnnotation


@dataclasses.dataclass(frozen=True)
class RegionReader:
    """Reads regions of a table."""

    table: mosaic.RegionTable
    conditions: region_labels.RegionLabels
    phrasing: captions.Phrasing

    def batches(
        self, regions: Iterable[tuple[int, mosaic.Region]], size: int, threads: int
    ) -> Generator[list[LabelledRegion], None, None]:
        """Regions, each with its number, `size` at a time; threads read the next ones while these
        are used."""
        read = lambda item: self.read(*item)
        with contextlib.closing(ahead.ahead(read, regions, threads=threads, count=size)) as each:
            while batch := list(itertools.islice(each, size)):
                yield batch

    def read(self, number: int, region: mosaic.Region) -> LabelledRegion:
        """One region; all of it is decoded only where its condition depends on its pixels."""
        table, whole = self.table, None
        px, side = table.cell_px, table.grid
        if self.conditions.see_pixels:
            whole = table.read(region)
            top, left = region.row * px, region.col * px
            grid = whole[top : top + side * px, left : left + side * px]
        else:
            grid = table.read_grid(region)
        # By number: a region has one caption, whichever host or thread reads it.
        generator = np.random.default_rng([table.seed, number])
        annotation = self.conditions.of(region, whole, generator, self.phrasing)
        corner, size = np.array([[region.row, region.col]]), (region.cells, region.cells)
        position = conditions.GridPosition.of_cells(corner, size)
        return LabelledRegion(patch_grid.cut_cells(grid, px), position, annotation)
