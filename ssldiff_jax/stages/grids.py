"""Stage `grids`: grids of embeddings of neighbouring cells, white, and what they are told to be."""

import dataclasses
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssldiff_jax.core import files, moments
from ssldiff_jax.data import captions, mosaic, store
from ssldiff_jax.encoders import encoder
from ssldiff_jax.evaluation import images
from ssldiff_jax.prior import conditions, whitening
from ssldiff_jax.stages import parts, region_conditions, stage
from ssldiff_jax.train import logs

_BATCH = 32
_SPLITS: dict[str, captions.Phrasing] = {"train": "train", "test": "held_out"}


def run(context: stage.Context) -> dict[str, Any]:
    """Write for both splits an array store of white grids with their conditions and the captions,
    `whitening.npz`, and `spec.json`. Patches of a list have no neighbours: grids of one cell."""
    if context.config.embeddings.source:
        # There is no encoder to embed neighbours with.
        return {"imported": context.config.embeddings.source}
    folder, model = context.folder("grids"), parts.load_encoder(context)
    told = region_conditions.RegionConditions(context)
    sums = moments.Moments(model.dim)
    for split in _SPLITS:
        _embed(context, split, model, told, sums)
    white = whitening.Whitening.of(sums)
    white.save(folder / "whitening.npz")
    facts = {
        "dim": model.dim,
        "side": _side(context),
        "encoder": parts.encoder_digest(model),
        "spec": dataclasses.asdict(told.spec),
        "scales": told.scales,
    }
    counts = {split: _whiten(context, split, white, facts) for split in _SPLITS}
    files.write_json(folder / "spec.json", facts)
    return facts | {"grids": counts}


def _side(context: stage.Context) -> int:
    alone = parts.are_pages(context)
    return 1 if alone else context.config.prior.grids.side


def regions_of(context: stage.Context, split: str) -> mosaic.RegionTable:
    """Regions of a split; held-out parts of slides may hold no more than a grid."""
    config, section = context.config, context.config.prior.grids
    whole = mosaic.Mosaic(parts.records(context, split), config.data.records.record_px)
    return mosaic.RegionTable(
        whole,
        section.count if split == "train" else section.count_test,
        config.data.crops.patch_px,
        _side(context),
        section.most_cells if split == "train" and _side(context) > 1 else _side(context),
        config.data.crops.dihedral and split == "train",
        config.seed + (split == "test"),
    )


def _embed(
    context: stage.Context,
    split: str,
    model: encoder.Encoder,
    told: region_conditions.RegionConditions,
    sums: moments.Moments,
) -> None:
    """Write `raw_SPLIT`; the embeddings of training add to `sums`."""
    side = _side(context)
    fields = (
        store.Field("grid", (side, side, model.dim), "float32"),
        store.Field("condition", (told.spec.dim,), "float16"),
    )
    writer, said = store.StoreWriter(context.folder("grids") / f"raw_{split}", fields), []
    table = regions_of(context, split)
    progress = logs.Progress(f"grids {split}", len(table))
    for regions in _batched(table):
        pixels = [table.read(region) for region in regions]
        cells = [_cells(p, r, table) for p, r in zip(pixels, regions, strict=True)]
        grid = model(np.concatenate(cells)).reshape(len(regions), side, side, -1)
        if split == "train":
            sums.add(grid.reshape(-1, model.dim))
        found = [
            told.of(r, p, np.random.default_rng([table.seed, len(said) + i]), _SPLITS[split])
            for i, (r, p) in enumerate(zip(regions, pixels, strict=True))
        ]
        said += [t.caption for t in found]
        writer.append(grid=grid, condition=told.pack(found, _places(regions)))
        progress.update(len(regions))
    progress.close()
    writer.close()
    files.write_json(context.folder("grids") / f"captions_{split}.json", said)


def _batched(table: mosaic.RegionTable) -> Iterator[list[mosaic.Region]]:
    for start in range(0, len(table), _BATCH):
        yield [table[i] for i in range(start, min(start + _BATCH, len(table)))]


def _cells(pixels: np.ndarray, region: mosaic.Region, table: mosaic.RegionTable) -> np.ndarray:
    """The cells of a region that are looked at, in reading order."""
    px, side = table.cell_px, table.grid
    top, left = region.row * px, region.col * px
    return images.cut_cells(pixels[top : top + side * px, left : left + side * px], px)


def _places(regions: list[mosaic.Region]) -> np.ndarray:
    return np.concatenate(
        [conditions.Place.of_cells(np.array([[r.row, r.col]]), (r.cells, r.cells)) for r in regions]
    )


def _whiten(context: stage.Context, split: str, white: whitening.Whitening, facts: dict) -> int:
    raw = store.Store(context.folder("grids") / f"raw_{split}")
    fields = tuple(dataclasses.replace(f, dtype="float16") for f in raw.fields)
    writer = store.StoreWriter(context.folder("grids") / split, fields)
    for start in range(0, len(raw), _BATCH):
        batch = raw.batch(range(start, min(start + _BATCH, len(raw))))
        writer.append(grid=white.apply(batch["grid"]), condition=batch["condition"])
    writer.close(**facts)
    shutil.rmtree(context.folder("grids") / f"raw_{split}")
    return len(raw)
