"""Stage `patches`: slides, or patches already cut → records of both splits, and references."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.data import builder, patch_list, plan
from ssldiff_jax.evaluation import images
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import imported, list_source, runner, slide_source
from ssldiff_jax.weights import features, published

# Images of a data set that are larger are slides of their own.
_LARGEST_PATCH = 1024


def fingerprint(config: run_config.RunConfig) -> dict[str, Any]:
    """Name and size of every slide or list, and of embeddings computed elsewhere."""
    spec = config.data.slides
    if patch_list.is_list(spec):
        patches = patch_list.open_list(spec)
        path = pathlib.Path(patches.source)
        file = published.fingerprint(str(path)) if path.is_file() else None
        slides = [[patches.source, len(patches), file]]
    else:
        slides = [[path.name, path.stat().st_size] for path in slide_source.paths(config.data)]
    return {"slides": slides, "embeddings": config.embeddings.fingerprint()}


def run(context: runner.Context) -> dict[str, Any]:
    """Write `records/` (TFDS), `region_N.png` with `regions.json`, and `skipped.json`."""
    spec = context.config.data.slides
    patches = patch_list.open_list(spec) if patch_list.is_list(spec) else None
    if patches is None:
        return _of_slides(context, slide_source.openers(context.config.data))
    if getattr(patches, "largest_side", 0) > _LARGEST_PATCH:
        return _of_slides(context, slide_source.openers_of(patches, context.config.data))
    return _of_list(context, patches)


def _of_slides(
    context: runner.Context, slides: list[tuple[str, slide_source.OpenSlide]]
) -> dict[str, Any]:
    section = context.config.embeddings
    found = slide_source.OpenSlides(
        context.config.data, slides, section.of_slide if section.source else None
    )
    source = found.source()
    facts = _write(context, source, found.features_of if section.source else None)
    for number, overview in found.overviews(source.references):
        pyramid.write_png(context.folder("patches") / f"overview_{number}.png", overview)
    found.close()
    return facts


def _of_list(context: runner.Context, patches: patch_list.PatchList) -> dict[str, Any]:
    section = context.config.embeddings
    embeddings = section.of_list() if section.source else None
    source = list_source.read_source(context.config.data, patches, embeddings)
    return _write(context, source, (lambda number: embeddings) if section.source else None)


def _write(
    context: runner.Context,
    source: plan.Source,
    embeddings: Callable[[int], features.Features] | None,
) -> dict[str, Any]:
    data, folder = context.config.data, context.folder("patches")
    files.write_json(folder / "skipped.json", source.skipped)
    _check_splits(source, data)
    agreement = None
    if embeddings and context.config.embeddings.check == "pixels":
        agreement = imported.check_alignment(source, embeddings)
    counts = builder.write_records(
        folder / "records",
        builder.RecordPlan(source.read, source.splits, data.records.jpeg_quality),
    )
    for i, reference in enumerate(source.references):
        cells = np.stack([source.read(cell) for cell in reference.cells])
        pyramid.write_png(folder / f"region_{i}.png", images.mosaic(cells, reference.cols))
    files.write_json(folder / "regions.json", [_told(r, source) for r in source.references])
    return {
        "slides": source.names,
        "skipped": source.skipped,
        "records": counts,
        "regions": len(source.references),
        "agreement": agreement and dataclasses.asdict(agreement),
    }


def _told(reference: plan.Reference, source: plan.Source) -> dict[str, Any]:
    """A reference as regions.json has it."""
    first, kind = reference.cells[0], reference.kind
    px = first.height
    return {
        "kind": kind,
        "slide": first.slide,
        "slide_name": source.names[first.slide if kind == "region" else 0],
        "top": first.top,
        "left": first.left,
        "height": reference.rows * px,
        "width": reference.cols * px,
        "cells": [[cell.slide, cell.row] for cell in reference.cells],
    }


def _check_splits(source: plan.Source, data: run_config.DataConfig) -> None:
    for name, squares in source.splits.items():
        if not squares:
            raise slide_lib.SlideError(
                f"no tissue, or no patch of embeddings, for the {name} split in {data.slides!r}: "
                f"expected squares of {data.records.record_px} px at {data.patch_mpp} mpp with "
                f"tissue ≥ {data.records.min_tissue}, held out by {data.holdout.by}; got none"
            )
    if len(source.references) < data.regions.count:
        size = (data.regions.rows * data.crops.patch_px, data.regions.cols * data.crops.patch_px)
        raise config_lib.ConfigError(
            f"config.data.regions wants {data.regions.count} held-out regions of {size} px that "
            f"do not overlap, got {len(source.references)}"
        )
