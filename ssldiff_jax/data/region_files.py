"""Held-out regions as the stage `patches` cuts them: a PNG for people and, of other bands than
red, green and blue, a TIFF of all of them beside it."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import arrays, patch_grid
from ssldiff_jax.data import plan
from ssldiff_jax.slides import pictures, written


def write_all(
    folder: pathlib.Path,
    pixels: Iterable[list[arrays.Pixels]],
    references: Sequence[plan.Reference],
    scale: written.Scale,
    level: float = 1,
) -> None:
    """Write references, each of its cells, at a level of records; `scale` is that of a pixel."""
    for number, (reference, cells) in enumerate(zip(references, pixels, strict=True)):
        picture = patch_grid.mosaic(np.stack(cells), reference.cols)
        pictures.write(folder, plan.split_at(f"region_{number}", level), picture, scale)


def about(reference: plan.Reference, names: Mapping[int, str]) -> dict[str, Any]:
    """A reference as regions.json has it; `names` of slides by number."""
    first, kind = reference.cells[0], reference.kind
    px = first.height
    return {
        "kind": kind,
        "slide": first.slide,
        "slide_name": names[first.slide if kind == "region" else 0],
        "top": first.top,
        "left": first.left,
        "height": reference.rows * px,
        "width": reference.cols * px,
        "cells": [[cell.slide, cell.row] for cell in reference.cells],
    }
