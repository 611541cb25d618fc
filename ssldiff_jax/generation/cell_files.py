"""Cells of a large image against those of its reference, as files beside the image."""

import dataclasses
import logging
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt

from ssldiff_jax.core import arrays, patch_grid, vectors
from ssldiff_jax.evaluation.metrics import large_image
from ssldiff_jax.generation import generator, sources
from ssldiff_jax.report import cells, placed_cells
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import held_out
from ssldiff_jax.sampler import conditions
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Network:
    """What sees cells, and what it is called."""

    name: str
    embed: large_image.EmbedFn

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts) -> "Network | None":
        """The judge where a run has one, which the generator never sees; else the encoder; None
        where embeddings were computed elsewhere."""
        for name in ("judge", "encoder"):
            if not artifacts.folders.is_done(name):
                continue
            try:
                return cls(name, artifacts.encoder(name))
            except (ValueError, OSError, KeyError) as error:  # of another config, or damaged
                reason = " ".join(str(error).split())
                _LOG.warning("cells are not compared by the %s: %.200s", name, reason)
        return None


@dataclasses.dataclass(frozen=True)
class CellOutput:
    """Files of cells that are asked for, by what they end in, and microns per pixel of images."""

    formats: tuple[str, ...]
    mpp: float


@dataclasses.dataclass(frozen=True)
class CellFiles:
    """What writes `cells.geojson`, px of the image, and, of a slide, `cells_slide.geojson`, px of
    its level 0; and `cells.h5ad`.

    Attributes:
        network: by which cells are compared.
        read: pixels of the reference, whose size the image has.
        side: of a cell, px.
        place: of the reference in its slide.
        output: which files, and the image's microns per pixel.
    """

    folder: pathlib.Path
    network: Network
    read: conditions.ReadFn
    side: int
    place: held_out.SlidePlace | None
    output: "CellOutput"

    @classmethod
    def of_request(
        cls,
        artifacts: artifacts_lib.Artifacts,
        model: generator.Generator,
        source: sources.Source,
        size: tuple[int, int],
        folder: pathlib.Path,
    ) -> "CellFiles | None":
        """Of an image of `size` that the tool `generate` makes in a folder; None where it has no
        reference cell by cell: pixels of its own size and level, and nothing else asked for."""
        section = artifacts.config.generate
        is_other = section.outpaint_px or section.blend_with or section.edits
        is_alike = source.read is not None and tuple(source.size) == tuple(size) and not is_other
        if not section.cells or not is_alike or model.planner.finest.ratio > 1:
            return None
        network = Network.of_run(artifacts)
        if network is None:
            return None
        if section.reference:
            top, left = section.region[:2] or (0, 0)
            factor = slide_lib.native_pixels(source.native_mpp, model.reading_data.patch_mpp)
            place = held_out.SlidePlace(top, left, factor)
        else:
            of_run = artifacts.with_references
            place = held_out.slide_places(of_run.config, of_run.folders)[0]
        side = artifacts.config.data.crops.patch_px
        output = CellOutput(section.cells, model.mpp)
        return cls(folder, network, source.read, side, place, output)

    def write(self, image: pyramid.RawImage) -> None:
        """Write the files; a row of cells at a time is in memory. An image without a whole cell
        has none, nor has one whose reference can no longer be read."""
        try:
            self._write(image)
        except (ValueError, OSError, MemoryError) as error:
            # The image was asked for, and is there.
            reason = " ".join(str(error).split()) or type(error).__name__
            _LOG.warning("files of cells are left out: %s", reason)

    def _write(self, image: pyramid.RawImage) -> None:
        side = self.side
        rows, cols = image.height // side, image.width // side
        if not rows * cols:
            return
        width = cols * side
        real = (self.read(row * side, 0, side, width) for row in range(rows))
        generated = (image.rows(row * side, side)[:, :width] for row in range(rows))
        found = large_image.CellFeatures(self._features(generated), self._features(real))
        measurements = cells.of_matches({self.network.name: found.matches()})
        lattice, place = cells.Lattice(rows, cols, side), self.place
        placed_cells.PlacedCells(
            lattice,
            place and lattice.seen(place.factor, place.left, place.top),
            cells.CellFigures(measurements),
            {self.network.name: found.generated},
            self.output.mpp,
        ).write(self.folder, "cells", self.output.formats)

    def _features(self, strips: Iterator[arrays.Pixels]) -> Float[np.ndarray, "N D"]:
        """Unit features of the cells of strips, each a row of cells."""

        def of(strip: arrays.Pixels) -> Float[np.ndarray, "M D"]:
            patches: UInt[np.ndarray, "M s s bands"] = patch_grid.cut_cells(strip, self.side)
            return vectors.unit(self.network.embed(patches))

        return np.concatenate([of(strip) for strip in strips])
