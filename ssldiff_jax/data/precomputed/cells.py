"""The patches of a slide that embeddings computed elsewhere list."""

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np

from ssldiff_jax.core import arrays, pixel_units
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import plan, tiling
from ssldiff_jax.data.precomputed import files, source
from ssldiff_jax.slides import remote
from ssldiff_jax.slides import slide as slide_lib

_LOG = logging.getLogger(__name__)

_ROWS = 4096  # embeddings read at once


@dataclasses.dataclass(frozen=True)
class ImportedCells:
    """Finds the patches of a slide that embeddings computed elsewhere list."""

    section: source.EmbeddingsSection
    data: data_config.DataConfig

    def __call__(self, slide: slide_lib.Slide, parts: Mapping[str, plan.Part]) -> tiling.Cells:
        """Patches that lie, with context, within the part of a split.

        Raises SlideError for a slide without embeddings, WeightsError for those that do not fit.
        """
        values = self.section.of_slide(remote.printable(remote.name_of(str(slide.path))))
        if values is None:
            raise slide_lib.SlideError(
                "expected files of embeddings named as the slides are, got none for "
                f"{slide.path.name}"
            )
        values = values.at_level_0(slide.mpp)
        # All of them now: a wrong file costs its slide, and not a training later.
        _check_rows(values)
        data = self.data
        scale = slide.downsample(data.patch_mpp)
        px, context = data.crops.patch_px, data.crops.context_px
        _check_corners(values, slide, px * scale)
        lefts, tops = np.round(values.corners / scale).astype(int).T
        squares = {}
        for split, part in parts.items():
            ends = (tops, part.rows), (lefts, part.cols)
            here = np.all(
                [(at - context >= a) & (at + px + context <= b) for at, (a, b) in ends], axis=0
            )
            squares[split] = [
                plan.Square(0, int(tops[i]), int(lefts[i]), px, px, int(i))
                for i in np.flatnonzero(here)
            ]
        used = sum(map(len, squares.values()))
        if used < len(values):
            _LOG.warning(
                "%s: %d of %d patches cross the border between training and held-out parts and "
                "are left out",
                         values.path, len(values) - used, len(values))  # fmt: skip
        return squares


def some_cells(task: tiling.Task, count: int) -> list[tuple[plan.Square, arrays.Pixels]]:
    """Some of the training patches of a slide that are known already, and their pixels; of a slide
    that cannot be used, none."""
    config, mpp = task.config, task.config.patch_mpp
    try:
        slide = task.open()
        try:
            parts = plan.parts(slide, config.holdout, mpp, task.about.side)
            cells = task.find_cells(slide, parts).get("train", [])
            chosen = np.random.default_rng(0).permutation(len(cells))[:count]
            squares = [plan.grown(cells[i], config.context_px) for i in chosen]
            return [
                (s, slide.read_region(s.top, s.left, s.height, s.width, mpp=mpp)) for s in squares
            ]
        finally:
            slide.close()
    except (ValueError, OSError):  # reported when the slide is tiled
        return []


def _check_rows(values: files.Features) -> None:
    """Raise WeightsError where a row cannot be read, or is not finite."""
    for start in range(0, len(values), _ROWS):
        values.rows(np.arange(start, min(start + _ROWS, len(values))))


def _check_corners(values: files.Features, slide: slide_lib.Slide, native_px: float) -> None:
    height, width = slide.shape
    x, y = values.corners.T
    outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise files.WeightsError(
            f"{values.path}: coords must lie inside {slide.path.name} ({width} × {height} px, x "
            f"first), got {values.corners[row].tolist()} in row {row}"
        )
    # A file has the side in whole pixels.
    slack = max(slide_lib.MPP_TOLERANCE * native_px, 0.5)
    if values.patch_px and abs(values.patch_px - native_px) > slack:
        raise files.WeightsError(
            f"{values.path}: patches must have {native_px:g} px of {slide.path.name}'s full "
            f"resolution (config.data.crops.patch_px at {pixel_units.patch_key(slide.mpp)}), got "
            f"{values.patch_px}"
        )
