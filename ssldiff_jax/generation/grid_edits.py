"""Grids of embeddings from files, and cells of a grid replaced one by one."""

import pathlib
import re

import numpy as np
from jaxtyping import Bool, Float

from ssldiff_jax.core import arrays
from ssldiff_jax.data.precomputed import embedding_grids
from ssldiff_jax.generation import generator, user_images

# Two numbers are a cell, before anything else is taken for a file.
_EDIT = re.compile(r"(\d+),(\d+)=(?:(\d+),(\d+)|(?P<source>.+))")


_SUFFIXES = (".npy", ".h5", ".hdf5")


def is_grid(path: str) -> bool:
    """Whether a path is that of embeddings, by its ending."""
    return path.endswith(_SUFFIXES)


def load_grid(path: str) -> arrays.EmbeddingGrid:
    """The grid in a .npy file, or in an .h5 file of a slide's embeddings with their places.

    Raises ValueError for what is no (rows, columns, D) of floats, WeightsError for an .h5 file
    without places.
    """
    if path.endswith(_SUFFIXES[1:]):
        return embedding_grids.of_file(pathlib.Path(path).expanduser())
    try:
        grid = np.load(pathlib.Path(path).expanduser(), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be an array of embeddings (.npy), got: {error}") from error
    if grid.ndim != 3 or not np.issubdtype(grid.dtype, np.floating):
        raise ValueError(
            f"{path} must hold (rows, columns, D) floats, got {grid.shape} and {grid.dtype}"
        )
    # Files of embeddings are often float16: what is computed with them needs more digits.
    return grid.astype(np.float32)


def open_grid(path: str, model: generator.Generator) -> arrays.EmbeddingGrid:
    """The grid in a file of embeddings, or of an image, embedded cell by cell."""
    if is_grid(path):
        return load_grid(path)
    image = user_images.UserImage.open(model.config.data, path)
    return model.planner.embed_all(image.read, image.size)


def one_embedding_each(
    grid: Float[np.ndarray, "rows cols E"], model: generator.Generator
) -> Float[np.ndarray, "rows cols D"]:
    """The embedding of each cell, as the prior knows it, of a grid of tokens.

    Raises ValueError for an encoder whose embeddings are no means of tokens.
    """
    per_side = model.trained.denoiser.config.tokens_per_side
    if per_side == 1 or model.config.cells_are_tokens:
        return grid
    if model.encoder.architecture.vit.pool != "mean":
        raise ValueError(
            "cells of the prior among cells of a reference must come with an encoder whose "
            f"embedding is the mean of its tokens, got pool={model.encoder.architecture.vit.pool}"
        )
    return grid.reshape(*grid.shape[:2], per_side**2, -1).mean(axis=2)


def source_file(edit: str) -> str | None:
    """The file whose embedding an edit takes; None for one that takes none."""
    match = _EDIT.fullmatch(edit)
    return match["source"] if match and match["source"] != "prior" else None


def edited(
    grid: arrays.EmbeddingGrid,
    keep: Bool[np.ndarray, "rows cols"],
    edit: str,
    model: generator.Generator,
) -> tuple[arrays.EmbeddingGrid, Bool[np.ndarray, "rows cols"]]:
    """The grid with one cell replaced, "row,col=row,col" by another, "row,col=file" by that of
    an image; and what stays of it: not that of "row,col=prior"."""
    match = _EDIT.fullmatch(edit)
    if not match:
        raise ValueError(
            f"generate.edits must read 'row,col=row,col' or 'row,col=file', got {edit!r}"
        )
    numbers = [int(n) for n in match.groups()[:4] if n is not None]
    for row, col in zip(numbers[::2], numbers[1::2], strict=True):
        if row >= grid.shape[0] or col >= grid.shape[1]:
            raise ValueError(
                f"generate.edits must name cells of {grid.shape[0]} × {grid.shape[1]}, got {edit!r}"
            )
    # The grid may be the caller's, or that of a reference.
    grid, keep = grid.copy(), keep.copy()
    other = match["source"]
    if other == "prior":
        keep[numbers[0], numbers[1]] = False
    elif other is None:
        grid[numbers[0], numbers[1]] = grid[numbers[2], numbers[3]]
    else:
        grid[numbers[0], numbers[1]] = _first_cell(other, model)
    return grid, keep


def _first_cell(path: str, model: generator.Generator) -> np.ndarray:
    image = user_images.UserImage.open(model.config.data, path)
    return model.embed(image.read(0, 0, model.patch_px, model.patch_px))[0, 0]
