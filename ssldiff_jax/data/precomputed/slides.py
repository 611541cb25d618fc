"""Slides of a run and the embeddings computed elsewhere for them: do they belong together?"""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from ssldiff_jax.data import tiled as tiled_lib
from ssldiff_jax.data import tiling
from ssldiff_jax.data.precomputed import cells as imported_cells
from ssldiff_jax.data.precomputed import files as features
from ssldiff_jax.data.precomputed import source as imported

# Slides whose embeddings are compared with pixels before all are tiled.
_LOOKED_AT = 8


def agreement(
    tasks: list[tiling.Task], section: imported.EmbeddingsSection
) -> dict[str, float] | None:
    """Whether rows of embeddings are those of their patches, seen in a few slides before hours are
    spent on all."""
    looked_at = np.unique(np.linspace(0, len(tasks) - 1, _LOOKED_AT).astype(int)).tolist()
    count = imported.NUM_COMPARED // len(looked_at)
    cells = {number: imported_cells.some_cells(tasks[number], count) for number in looked_at}
    files = {number: section.of_slide(tasks[number].name) for number in looked_at if cells[number]}
    odd = _odd_dims(files)
    compared = [
        (n, *cell) for n, found_cells in cells.items() if n not in odd for cell in found_cells
    ]
    squares = [dataclasses.replace(square, slide=number) for number, square, _ in compared]
    pixels = [image for *_, image in compared]
    alignment = imported.check_alignment(
        len(squares), squares.__getitem__, pixels.__getitem__,
        lambda number: section.of_slide(tasks[number].name),
    )  # fmt: skip
    return alignment and dataclasses.asdict(alignment)


def of_other_dims(tiled: tiled_lib.Tiled, section: imported.EmbeddingsSection) -> dict[int, str]:
    """Slides whose embeddings have another length than most, and what it is."""
    return _odd_dims({n: section.of_slide(tiled.names[n]) for n in tiled.entries})


def _odd_dims(files: Mapping[int, features.Features]) -> dict[int, str]:
    counts = collections.Counter(file.dim for file in files.values())
    most = max(counts, key=counts.__getitem__, default=0)
    return {
        number: f"{file} must have {most} dimensions as most have, got {file.dim}"
        for number, file in files.items()
        if file.dim != most
    }
