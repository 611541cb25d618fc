"""All that is known of the cells of one large image, as the files that were asked for."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.data import embedding_table
from ssldiff_jax.report import cells


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedCells:
    """Cells, where they lie, and what networks make of them.

    Attributes:
        lattice: px of the image.
        on_slide: px of level 0 of the reference's slide; None where it lies in none.
        figures: of each cell.
        embeddings: unit vectors of generated cells, by network; the first are a table's `X`.
        mpp: microns per pixel of the image.
    """

    lattice: cells.Lattice
    on_slide: cells.Lattice | None
    figures: cells.CellFigures
    embeddings: Mapping[str, Float[np.ndarray, "N _"]]
    mpp: float

    def write(self, folder: pathlib.Path, name: str, formats: Sequence[str]) -> None:
        """Write `NAME.geojson`, of a slide `NAME_slide.geojson` too, and `NAME.h5ad`, where these
        are among `formats`.

        Raises ValueError for figures of other cells, or where a library is not installed.
        """
        if "geojson" in formats:
            cells.write(folder / f"{name}.geojson", self.lattice, self.figures)
            if self.on_slide is not None:
                cells.write(folder / f"{name}_slide.geojson", self.on_slide, self.figures)
        if embedding_table.FORMAT in formats:
            self._table().write(folder / f"{name}.{embedding_table.FORMAT}")

    def _table(self) -> embedding_table.EmbeddingTable:
        count = self.lattice.rows * self.lattice.cols
        self.figures.require(count)
        (network, first), *others = self.embeddings.items()
        arrays = {"spatial": self.lattice.centres} | dict(others)
        about = {"encoder": network, "mpp": self.mpp, "patch_size": self.lattice.side}
        if self.on_slide is not None:
            arrays["spatial_slide"] = self.on_slide.centres
            about["patch_size_slide"] = self.on_slide.side
        # SpatialData takes no other characters in names.
        of_figures = self.figures.measurements.items()
        columns = {re.sub(r"[^\w.-]+", "_", name): values for name, values in of_figures}
        if self.figures.classes is not None:
            columns["class"] = self.figures.classes
        names = [self.lattice.name(number) for number in range(count)]
        return embedding_table.EmbeddingTable(first, names, arrays, columns, about)
