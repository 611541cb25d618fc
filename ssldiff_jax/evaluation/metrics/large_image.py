"""Figures of a large image against its reference, in the features of an encoder."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt

from ssldiff_jax.core import arrays, bands, patch_grid, vectors
from ssldiff_jax.evaluation.metrics import frechet

_ROWS = 1024  # of a matrix of cosines that are in memory

EmbedFn = Callable[[UInt[np.ndarray, "N s s bands"]], Float[np.ndarray, "N D"]]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A synthetic large image and the region whose embeddings it was generated from."""

    image: arrays.Pixels
    reference: arrays.Pixels

    def seen(self, view: bands.View) -> "Pair":
        """Three of their bands as RGB."""
        return Pair(view(self.image), view(self.reference))


@dataclasses.dataclass(frozen=True, eq=False)
class CellFeatures:
    """Unit features of the cells of a synthetic image and of its reference, in reading order."""

    generated: Float[np.ndarray, "N D"]
    real: Float[np.ndarray, "N D"]

    @classmethod
    def of(cls, pair: Pair, embed: EmbedFn, side: int) -> "CellFeatures":
        """Those of a pair by one network."""
        return cls(
            *(
                _unit_features([patch_grid.cut_cells(image, side)], embed)
                for image in (pair.image, pair.reference)
            )
        )

    @property
    def cosines(self) -> Float[np.ndarray, "N N"]:
        """Of every synthetic cell (rows) with every reference cell (columns)."""
        return self.generated @ self.real.T

    def matches(self) -> "CellMatches":
        """How each synthetic cell agrees with its own reference cell; rows of cosines at a time."""
        similarity = np.empty(len(self.real), np.float32)
        rank = np.empty(len(self.real), int)
        for start in range(0, len(self.real), _ROWS):
            cosines = self.generated[start : start + _ROWS] @ self.real.T
            own = np.diagonal(cosines, start)
            similarity[start : start + _ROWS] = own
            rank[start : start + _ROWS] = 1 + (cosines > own[:, None]).sum(axis=1)
        return CellMatches(similarity, rank)


@dataclasses.dataclass(frozen=True, eq=False)
class CellMatches:
    """The cosine of each synthetic cell with its reference cell, and the place of that cosine
    among those with all reference cells, 1 the highest."""

    similarity: Float[np.ndarray, "N"]
    rank: Int[np.ndarray, "N"]


def cell_similarity(pair: Pair, embed: EmbedFn, side: int) -> Float[np.ndarray, "N N"]:
    """Cosines of every synthetic cell (rows) with every reference cell (columns)."""
    return CellFeatures.of(pair, embed, side).cosines


def cells(pairs: list[Pair], embed: EmbedFn, side: int) -> dict:
    """The figures of cells, by one network."""
    return cell_figures([CellFeatures.of(pair, embed, side) for pair in pairs])


def cell_figures(features: Sequence[CellFeatures]) -> dict:
    """embedding_similarity (mean of matching cells, and of all others: None where each pair is
    one cell) and cell_retrieval_top1 (within each pair)."""
    cosines = [pair.cosines for pair in features]
    matching = np.concatenate([np.diagonal(c) for c in cosines])
    # What cells of one region have in common: similarity means something above it alone.
    others = np.concatenate([c[~np.eye(len(c), dtype=bool)] for c in cosines])
    # Among the cells of its own region, which chance is told of too.
    top1 = np.concatenate([np.argmax(c, axis=1) == np.arange(len(c)) for c in cosines])
    return {
        "embedding_similarity": {
            "mean": matching.mean(),
            "shuffled": others.mean() if len(others) else None,
        },
        "cell_retrieval_top1": top1.mean(),
        "num_cells": len(matching),
    }


def crops(pairs: list[Pair], embed: EmbedFn, side: int) -> dict:
    """Uncorrected Fréchet distances: `crop_fd_uncorrected` and `fd_floor_uncorrected` both compare
    a lattice of real cells with one moved by half a cell, of the same places; that of the former is
    synthetic, that of the floor real. Images are pooled before.
    """
    # Half a cell aside: at the same places crops would be compared pixel by pixel.
    real, real_moved, synthetic = (
        _unit_features([patch_grid.cut_cells(image, side, shift) for image in images], embed)
        for images, shift in (
            ([pair.reference for pair in pairs], 0),
            ([pair.reference for pair in pairs], side // 2),
            ([pair.image for pair in pairs], side // 2),
        )
    )
    return {
        "crop_fd_uncorrected": frechet.frechet_distance(real, synthetic),
        "fd_floor_uncorrected": frechet.frechet_distance(real, real_moved),
    }


def patch_distance(
    real: list[arrays.Pixels], generated: list[arrays.Pixels], embed: EmbedFn, side: int
) -> float:
    """Fréchet distance between the pooled cells of two lists of images, uncorrected."""
    of_real, of_generated = (
        np.concatenate([patch_grid.cut_cells(page, side) for page in pages])
        for pages in (real, generated)
    )
    return cell_distance(of_real, of_generated, embed)


def cell_distance(
    a: UInt[np.ndarray, "N s s bands"], b: UInt[np.ndarray, "M s s bands"], embed: EmbedFn
) -> float:
    """Fréchet distance between unit features of two sets of cells, uncorrected."""
    of_a, of_b = (_unit_features([cells], embed) for cells in (a, b))
    return frechet.frechet_distance(of_a, of_b)


def _unit_features(
    squares: list[UInt[np.ndarray, "_ s s bands"]], embed: EmbedFn
) -> Float[np.ndarray, "N D"]:
    """Of all squares together, each of length 1: distances are then of directions."""
    return vectors.unit(embed(np.concatenate(squares)))
