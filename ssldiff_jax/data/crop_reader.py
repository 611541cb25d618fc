"""The pixels of crops by their numbers in a table: as the encoder and the autoencoder see them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt

from ssldiff_jax.core import arrays
from ssldiff_jax.data import crops, records


@dataclasses.dataclass(frozen=True)
class CropReader:
    """Reads crops of a table; several threads may share one."""

    source: records.RecordSource
    table: crops.CropTable

    def with_context(self, numbers: Sequence[int]) -> UInt[np.ndarray, "N S S bands"]:
        """Patches with what lies around them, for the autoencoder."""
        side = self.table.config.context_patch_px
        out = np.empty((len(numbers), side, side, self.source.num_bands), self.source.dtype)
        for i, (crop, record) in enumerate(self._each(numbers)):
            crop.cut(record, side, out[i])
        return out

    def patches(self, numbers: Sequence[int]) -> UInt[np.ndarray, "N s s bands"]:
        """Patches alone, for the encoder."""
        margin, side = self.table.config.context_px, self.table.config.patch_px
        inner = np.s_[margin : margin + side]
        return np.ascontiguousarray(self.with_context(numbers)[:, inner, inner])

    def cells(
        self, numbers: Sequence[int]
    ) -> tuple[UInt[np.ndarray, "N 4 s s bands"], Float[np.ndarray, "N 2"]]:
        """The 2×2 cells that patches touch, and the corner of the first, as `Crop.cells` has it."""
        each = [crop.cells(record, self.table.config) for crop, record in self._each(numbers)]
        cells, corners = zip(*each, strict=True)
        return np.stack(cells), np.stack(corners)

    def _each(self, numbers: Sequence[int]) -> Iterator[tuple[crops.Crop, arrays.Pixels]]:
        found = [self.table[number] for number in numbers]
        # Read together, decoded one by one: pixels of a batch of records are large.
        encoded = self.source.encoded([crop.record for crop in found])
        for crop, record in zip(found, encoded, strict=True):
            yield crop, records.decode(records.encoded_image(record))


@dataclasses.dataclass(frozen=True)
class LevelReader:
    """Reads crops of all levels, whose numbers follow each other: those of the first level, then
    those of the next; several threads may share one."""

    readers: tuple[CropReader, ...]

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        """Crops of each level."""
        return tuple(len(reader.table) for reader in self.readers)

    def __len__(self) -> int:
        return sum(self.counts)

    def levels(self, numbers: Sequence[int]) -> Int[np.ndarray, "N"]:
        """The level of each crop, from 0."""
        return np.searchsorted(np.cumsum(self.counts), np.asarray(numbers, int), side="right")

    def with_context(self, numbers: Sequence[int]) -> UInt[np.ndarray, "N S S bands"]:
        """See CropReader."""
        return self._of_levels(numbers, lambda reader, own: (reader.with_context(own),))[0]

    def patches(self, numbers: Sequence[int]) -> UInt[np.ndarray, "N s s bands"]:
        """See CropReader."""
        return self._of_levels(numbers, lambda reader, own: (reader.patches(own),))[0]

    def cells(
        self, numbers: Sequence[int]
    ) -> tuple[UInt[np.ndarray, "N 4 s s bands"], Float[np.ndarray, "N 2"]]:
        """See CropReader."""
        return self._of_levels(numbers, lambda reader, own: reader.cells(own))

    def _of_levels(
        self,
        numbers: Sequence[int],
        read: Callable[[CropReader, list[int]], tuple[Shaped[np.ndarray, "n ..."], ...]],
    ) -> tuple[Shaped[np.ndarray, "N ..."], ...]:
        """What `read` makes of the crops of each level, in the order of `numbers`."""
        numbers, levels = np.asarray(numbers, int), self.levels(numbers)
        first, out = np.cumsum([0, *self.counts]), ()
        for level in np.unique(levels):
            here = levels == level
            parts = read(self.readers[level], (numbers[here] - first[level]).tolist())
            if here.all():
                return parts
            out = out or tuple(np.empty((len(numbers), *p.shape[1:]), p.dtype) for p in parts)
            for whole, part in zip(out, parts, strict=True):
                whole[here] = part
        return out
