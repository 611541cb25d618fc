"""Figures of the cells of large images as files: for the report, and for QuPath."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import patch_grid
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import plan
from ssldiff_jax.evaluation.metrics import large_image, memorisation
from ssldiff_jax.report import cells, placed_cells
from ssldiff_jax.runs import held_out, pixel_labels

ByNetwork = Mapping[str, Sequence[large_image.CellFeatures]]


@dataclasses.dataclass(frozen=True, eq=False)
class CellFiles:
    """What is known of the cells of large images.

    Attributes:
        pairs: the images and their references.
        features: of their cells, by network: the judge's and, where there is one, the encoder's.
        side: of a cell, px.
        training: the judge's features of training patches; None where there are none to compare
            with.
        measure: of classes by colours alone; None where classes are not known so.
        places: of the references in their slides.
    """

    pairs: Sequence[large_image.Pair]
    features: ByNetwork
    side: int
    training: Float[np.ndarray, "T D"] | None
    measure: pixel_labels.PixelLabels | None
    places: Sequence[held_out.SlidePlace | None]

    def write(self, folder: pathlib.Path, formats: Sequence[str], *, mpp: float) -> None:
        """Write `similarity_N.npy`; and of regions `cells_N.geojson`, px of the image, and
        `cells_N_slide.geojson`, px of the slide's level 0, and `cells_N.h5ad`, where asked for.

        Raises ValueError where a library for them is not installed."""
        nearest = self._nearest()
        by = {name: [pair.matches() for pair in of] for name, of in self.features.items()}
        shown = by.get("encoder", by["judge"])
        for i, (pair, place) in enumerate(zip(self.pairs, self.places, strict=True)):
            rows, cols = (length // self.side for length in pair.reference.shape[:2])
            np.save(folder / f"similarity_{i}.npy", shown[i].similarity.reshape(rows, cols))
            if place is None:
                continue
            lattice = cells.Lattice(rows, cols, self.side)
            placed_cells.PlacedCells(
                lattice,
                lattice.seen(place.factor, place.left, place.top),
                self._figures(pair, {name: of[i] for name, of in by.items()}, nearest[i]),
                # The encoder's first, by which images are made.
                {n: self.features[n][i].generated for n in sorted(self.features)},
                mpp,
            ).write(folder, f"cells_{i}", formats)

    def _figures(
        self,
        pair: large_image.Pair,
        matches: Mapping[str, large_image.CellMatches],
        nearest: Float[np.ndarray, "N"] | None,
    ) -> cells.CellFigures:
        measurements = cells.of_matches(matches)
        if nearest is not None:
            measurements["judge: similarity to the nearest training patch"] = nearest
        if self.measure is None:
            return cells.CellFigures(measurements)
        # Of colours alone, which do not ask where a square lies.
        square = plan.Square(0, 0, 0, self.side, self.side)
        shown = patch_grid.cut_cells(pair.image, self.side)
        classes = [self.measure.most(square, pixels) for pixels in shown]
        return cells.CellFigures(measurements, classes, self.measure.names)

    def _nearest(self) -> list[Float[np.ndarray, "N"] | None]:
        """The cosine of each cell with the training patch that is nearest, by the judge."""
        if self.training is None:
            return [None] * len(self.pairs)
        generated = [pair.generated for pair in self.features["judge"]]
        # Together: training features may be of many GB, and are read once.
        found = memorisation.nearest(np.concatenate(generated), self.training)
        ends = np.cumsum([len(cell) for cell in generated])[:-1]
        return [1 - distance for distance in np.split(found.distance, ends)]


def measure_of(classes: str, data: data_config.DataConfig) -> pixel_labels.PixelLabels | None:
    """The measure of `config.evaluate.classes`, where red, green and blue are all it needs."""
    if classes in ("", "recorded"):
        return None
    measure = pixel_labels.PixelLabels(classes, data)
    return measure if measure.see_pixels else None
