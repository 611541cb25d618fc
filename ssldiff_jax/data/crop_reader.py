"""The pixels of crops by their numbers in a table: as the encoder and the autoencoder see them."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays
from ssldiff_jax.data import crops, records


@dataclasses.dataclass(frozen=True)
class CropReader:
    """Reads crops of a table; several threads may share one."""

    source: records.RecordSource
    table: crops.CropTable

    def with_context(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "N S S 3"]:
        """Patches with what lies around them, for the autoencoder."""
        side = self.table.config.context_patch_px
        out = np.empty((len(numbers), side, side, 3), np.uint8)
        for i, (crop, record) in enumerate(self._each(numbers)):
            crop.cut(record, side, out[i])
        return out

    def patches(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "N s s 3"]:
        """Patches alone, for the encoder."""
        margin, side = self.table.config.context_px, self.table.config.patch_px
        inner = np.s_[margin : margin + side]
        return np.ascontiguousarray(self.with_context(numbers)[:, inner, inner])

    def cells(
        self, numbers: Sequence[int]
    ) -> tuple[UInt8[np.ndarray, "N 4 s s 3"], Float[np.ndarray, "N 2"]]:
        """The 2×2 cells that patches touch, and the corner of the first, as `Crop.cells` has it."""
        each = [crop.cells(record, self.table.config) for crop, record in self._each(numbers)]
        cells, corners = zip(*each, strict=True)
        return np.stack(cells), np.stack(corners)

    def _each(self, numbers: Sequence[int]) -> Iterator[tuple[crops.Crop, arrays.ImageUint8]]:
        found = [self.table[number] for number in numbers]
        # Read together, decoded one by one: pixels of a batch of records are large.
        encoded = self.source.encoded([crop.record for crop in found])
        for crop, record in zip(found, encoded, strict=True):
            yield crop, records.decode(records.encoded_image(record))
