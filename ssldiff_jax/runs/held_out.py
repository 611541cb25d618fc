"""What images are generated from and compared with, as the stage `patches` cut it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.data import csv_cells, plan
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.slides import pictures
from ssldiff_jax.slides import slide as slide_lib


@dataclasses.dataclass(frozen=True)
class Reference:
    """Held-out cells to generate from: a region of a slide, or a page of patches side by side.

    `image` has all bands; `grid` are their embeddings, where anything gave them.
    """

    image: arrays.Pixels
    kind: Literal["region", "page"]
    grid: arrays.EmbeddingGrid | None


@dataclasses.dataclass(frozen=True)
class SlidePlace:
    """Where a region lies in its slide: its corner in px of the region, and how many px of the
    slide's level 0 are one of these."""

    top: float
    left: float
    factor: float


def slide_places(
    config: run_config.RunConfig, folders: folders_lib.Folders
) -> list[SlidePlace | None]:
    """That of each reference, at the level of what is generated; None of a page, and of an image of
    a list."""
    folder = folders.of_stage("patches")
    regions, table = atomic.read_json(folder / "regions.json"), folder / "slides.csv"
    if not table.exists():
        return [None] * len(regions)
    with table.open(newline="", encoding="utf-8") as file:
        native_mpp = {int(row["number"]): float(row["mpp"]) for row in csv_cells.written_rows(file)}
    places: list[SlidePlace | None] = []
    for region in regions:
        # Cut at whole px of the level, as the region was.
        top, left = (int(region[side] / config.level) for side in ("top", "left"))
        mpp = native_mpp.get(region["slide"])
        is_known = region["kind"] == "region" and mpp is not None
        factor = slide_lib.native_pixels(mpp, config.level_data.patch_mpp) if is_known else 0
        places.append(SlidePlace(top, left, factor) if is_known else None)
    return places


def read(
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    embed: Callable[[arrays.Pixels], arrays.EmbeddingGrid] | None = None,
) -> list[Reference]:
    """Those of a run, at the level of what is generated: see Artifacts.references."""
    folder, references = folders.of_stage("patches"), []
    for i, about in enumerate(atomic.read_json(folder / "regions.json")):
        picture, bands = _picture(config, folder, i), config.data.reading.multiband
        image = pictures.read(folder, picture.stem, bands)
        if config.embeddings.source:
            path = folders.of_stage("embeddings") / f"region_{i}.npy"
            # A pickle could run code; work directories are handed on.
            grid = np.load(path, allow_pickle=False)
        else:
            grid = embed(image) if embed else None
        references.append(Reference(image, about["kind"], grid))
    return references


def _picture(config: run_config.RunConfig, folder: pathlib.Path, number: int) -> pathlib.Path:
    path = folder / f"{plan.split_at(f'region_{number}', config.level)}.png"
    if config.level != 1 and not path.exists():
        regions = config.data.regions
        raise folders_lib.WorkdirError(
            f"{path} must show a region at level {config.level:g}, got no such file: regions must "
            f"hold 2 × 2 cells of it (config.data.regions has rows={regions.rows}, cols="
            f"{regions.cols}); --config.force=patches cuts them again"
        )
    return path
