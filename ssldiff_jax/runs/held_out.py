"""What images are generated from and compared with, as the stage `patches` cut it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.data import plan
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.slides import pyramid


@dataclasses.dataclass(frozen=True)
class Reference:
    """Held-out cells to generate from: a region of a slide, or a page of patches side by side.

    `grid` are their embeddings, where anything gave them.
    """

    image: arrays.ImageUint8
    kind: Literal["region", "page"]
    grid: arrays.EmbeddingGrid | None


def read(
    config: run_config.RunConfig,
    folders: folders_lib.Folders,
    embed: Callable[[arrays.ImageUint8], arrays.EmbeddingGrid] | None = None,
) -> list[Reference]:
    """Those of a run, at the level of what is generated: see Artifacts.references."""
    folder, references = folders.of_stage("patches"), []
    for i, about in enumerate(atomic.read_json(folder / "regions.json")):
        image = pyramid.read_image(_picture(config, folder, i))
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
