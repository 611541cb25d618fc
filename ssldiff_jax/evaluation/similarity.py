"""Figures of a large image against its reference, in the features of an encoder."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from ssldiff_jax.core import arrays
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.evaluation import distances, images

EmbedFn = Callable[[UInt8[np.ndarray, "N s s 3"]], Float[np.ndarray, "N D"]]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A synthetic large image and the region whose embeddings it was drawn from."""

    image: arrays.ImageUint8
    reference: arrays.ImageUint8


def cell_similarity(pair: Pair, embed: EmbedFn, side: int) -> Float[np.ndarray, "N N"]:
    """Cosines of every synthetic cell (rows) with every reference cell (columns)."""
    unit = lambda image: encoder_lib.unit(embed(images.cut_cells(image, side)))
    return unit(pair.image) @ unit(pair.reference).T


def fidelity(pairs: list[Pair], embed: EmbedFn, side: int) -> dict:
    """embedding_similarity (mean of matching cells, and of all others), cell_retrieval_top1
    (within each region), and crop_fd with its floor.

    Both distances compare a lattice of real cells with one moved by half a cell, of the same
    places: crop_fd's is synthetic, the floor's is real. Images are pooled before.
    """
    cosines = [cell_similarity(pair, embed, side) for pair in pairs]
    matching = np.concatenate([np.diagonal(c) for c in cosines])
    others = np.concatenate([c[~np.eye(len(c), dtype=bool)] for c in cosines])
    top1 = np.concatenate([np.argmax(c, axis=1) == np.arange(len(c)) for c in cosines])

    pool = lambda cells: encoder_lib.unit(embed(np.concatenate(cells)))
    real = pool([images.cut_cells(p.reference, side) for p in pairs])
    real_moved = pool([images.cut_cells(p.reference, side, side // 2) for p in pairs])
    synthetic = pool([images.cut_cells(p.image, side, side // 2) for p in pairs])
    return {
        "embedding_similarity": {"mean": matching.mean(), "shuffled": others.mean()},
        "cell_retrieval_top1": top1.mean(),
        "crop_fd": distances.frechet_distance(real, synthetic),
        "fd_floor": distances.frechet_distance(real, real_moved),
        "num_cells": len(matching),
    }
