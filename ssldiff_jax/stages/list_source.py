"""Records from patches that are already cut."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.data import patch_list, plan
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.weights import features


def read_source(
    data: run_config.DataConfig,
    patches: patch_list.PatchList,
    embeddings: features.Features | None = None,
) -> plan.Source:
    """Every patch of the list with the size of a record; held out by case, or the last ones.

    Raises WeightsError where embeddings are not as many, PatchListError where a split has no
    patch of that size, ConfigError for context where embeddings are of whole patches.
    """
    if embeddings is not None and len(embeddings) != len(patches):
        raise features.WeightsError(
            f"{embeddings} must have a row for each patch of {patches.source}, got "
            f"{len(embeddings)} rows and {len(patches)} patches"
        )
    if embeddings is not None and data.crops.context_px:
        raise config_lib.ConfigError(
            "config.data.crops.context_px must be 0 where embeddings are of whole patches of a "
            f"list, got {data.crops.context_px}"
        )
    side, skipped = data.records.record_px, []
    splits: dict[str, list[plan.Square]] = {"train": [], "test": []}
    held_out = _held_out(data.holdout, patches)
    for number in range(len(patches)):
        try:
            shape = tuple(patches.shape(number))
        except patch_list.PatchListError as error:
            skipped.append({"slide": patches.name(number), "reason": str(error)})
            continue
        if shape != (side, side):
            reason = f"expected {side} × {side} px, got {shape[0]} × {shape[1]}"
            skipped.append({"slide": patches.name(number), "reason": reason})
            continue
        row = number if embeddings is not None else -1
        square = plan.Square(number, 0, 0, side, side, row)
        splits["test" if held_out(number) else "train"].append(square)
    for split, squares in splits.items():
        if not squares:
            first = f"; skipped {skipped[0]['slide']}: {skipped[0]['reason']}" if skipped else ""
            raise patch_list.PatchListError(
                f"{patches.source}: no patch for the {split} split, held out by "
                f"{data.holdout.by}, of config.data.records.record_px={side}; {len(skipped)} of "
                f"{len(patches)} were skipped{first}"
            )
    cut = lambda s: np.s_[s.top : s.top + s.height, s.left : s.left + s.width]
    return plan.Source(
        read=lambda square: patches.read(square.slide)[cut(square)],
        splits=splits,
        references=_pages(splits["test"], data),
        names={0: patches.source},
        skipped=skipped,
    )


def _held_out(holdout: plan.HoldoutConfig, patches: patch_list.PatchList) -> Callable[[int], bool]:
    if holdout.by == "case" and isinstance(patches, patch_list.PixelArray):
        raise config_lib.ConfigError(
            f"{patches.source} names no cases: config.data.holdout.by must be 'area', got 'case'"
        )
    if holdout.by == "area":
        first = len(patches) - plan.count_held_out(len(patches), holdout.fraction)
        return lambda number: number >= first
    return lambda number: plan.is_held_out(
        plan.case_of(patches.name(number), holdout.case_regex), holdout.fraction
    )


def _pages(squares: list[plan.Square], data: run_config.DataConfig) -> list[plan.Reference]:
    """Held-out patches side by side, as many pages as regions are wanted."""
    px, each = data.crops.patch_px, data.regions.rows * data.regions.cols
    margin = (data.records.record_px - px) // 2
    order = np.random.default_rng(0).permutation(len(squares))[: each * data.regions.count]
    cells = [
        dataclasses.replace(squares[i], top=margin, left=margin, height=px, width=px) for i in order
    ]
    pages = [tuple(cells[i : i + each]) for i in range(0, len(cells), each)]
    return [plan.Reference(page, data.regions.cols, "page") for page in pages if len(page) == each]
