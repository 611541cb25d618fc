"""Stage `embeddings`: the embedding of every crop, at the orientation of that crop; or those that
were computed elsewhere, in the order of our records."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import files
from ssldiff_jax.data import crops as crops_lib
from ssldiff_jax.data import store
from ssldiff_jax.diffusion import cells
from ssldiff_jax.encoders import encoder
from ssldiff_jax.stages import parts, runner
from ssldiff_jax.train import logs
from ssldiff_jax.weights import features

_BATCH = 256


def cropped(context: runner.Context, name: str) -> Iterator[np.ndarray]:
    """Batches of oriented training crops with their context, uint8, in the order of the table."""
    side = context.config.data.crops.context_patch_px
    for batch in _records(context, name):
        yield np.stack([crop.cut(record, side) for crop, record in batch])


def _records(
    context: runner.Context, name: str
) -> Iterator[list[tuple[crops_lib.Crop, np.ndarray]]]:
    """Batches of training crops, each with its record, in the order of the table."""
    source = parts.records(context, "train")
    table = parts.crop_table(context.config, source)
    progress = logs.Progress(name, len(table))
    for start in range(0, len(table), _BATCH):
        crops = [table[i] for i in range(start, min(start + _BATCH, len(table)))]
        yield [(crop, source[crop.record]) for crop in crops]
        progress.update(len(crops))
    progress.close()


def run(context: runner.Context) -> dict[str, Any]:
    """Write an array store of embeddings."""
    return _imported(context) if context.config.embeddings.source else _computed(context)


def _computed(context: runner.Context) -> dict[str, Any]:
    """What conditions each crop: the embedding of the crop itself, or of the cells it touches."""
    model, config = parts.load_encoder(context), context.config.data.crops
    of_batch = _of_cells if config.led_by == "cells" else _of_patches
    length = context.config.denoiser.model(model.dim, context.config.num_cells).condition_dim
    writer = store.StoreWriter(
        context.folder("embeddings"), (store.Field("embedding", (length,), "float32"),)
    )
    rank = 0.0
    for batch in _records(context, "embeddings"):
        embedding, condition = of_batch(batch, model, config)
        rank = rank or encoder.effective_rank(embedding)
        writer.append(embedding=condition)
    facts = {"dim": model.dim, "encoder": parts.encoder_digest(model), "effective_rank": rank}
    writer.close(**facts)
    return facts


def _of_patches(batch, model: encoder.Encoder, config: crops_lib.CropConfig):
    """(embeddings, conditions): the same."""
    margin = config.context_px
    inner = np.s_[margin : margin + config.patch_px, margin : margin + config.patch_px]
    side = config.context_patch_px
    embedding = model(np.stack([crop.cut(record, side)[inner] for crop, record in batch]))
    return embedding, embedding


def _of_cells(batch, model: encoder.Encoder, config: crops_lib.CropConfig):
    """(embeddings of all cells, conditions of the crops)."""
    found = [crop.cells(record, config) for crop, record in batch]
    embedding = model(np.concatenate([patches for patches, _ in found]))
    place = cells.touched_places(np.stack([corner for _, corner in found]))
    grouped = embedding.reshape(len(batch), cells.TOUCHED, -1)
    return embedding, cells.pack(grouped, place)


def _imported(context: runner.Context) -> dict[str, Any]:
    """One embedding a record, and `region_N.npy`, the grids of the references."""
    folder, embeddings = context.folder("embeddings"), parts.imported_embeddings(context)
    checked = files.read_json(context.folder("patches") / "stage.json")["config"]["inputs"]
    found = context.config.embeddings.fingerprint()
    if checked["embeddings"] != found:
        raise features.WeightsError(
            f"{context.config.embeddings.source} changed after its rows were held against the "
            f"patches: expected {checked['embeddings']}, got {found}; --config.force=patches does "
            "it anew"
        )
    for i, reference in enumerate(files.read_json(context.folder("patches") / "regions.json")):
        px = context.config.data.crops.patch_px
        rows, cols = reference["height"] // px, reference["width"] // px
        grid = _rows(np.array(reference["cells"]), embeddings).reshape(rows, cols, -1)
        files.write_atomic(folder / f"region_{i}.npy", lambda path, grid=grid: np.save(path, grid))
    source = parts.records(context, "train")
    places = np.array([source.place(i) for i in range(len(source))])
    dim = embeddings(int(places[0, 0])).dim
    writer = store.StoreWriter(folder, (store.Field("embedding", (dim,), "float32"),))
    # Records are in random order and files are read slide by slide: sorted on disk.
    sorted_path = folder / ".sorted.npy"
    table = np.lib.format.open_memmap(sorted_path, "w+", np.float32, (len(places), dim))
    progress = logs.Progress("embeddings", len(places))
    by_slide = np.argsort(places[:, 0], kind="stable")
    for start in range(0, len(places), _BATCH):
        here = by_slide[start : start + _BATCH]
        table[here] = _rows(places[here], embeddings)
        progress.update(len(here))
    progress.close()
    for start in range(0, len(places), _BATCH):
        writer.append(embedding=table[start : start + _BATCH])
    rank = encoder.effective_rank(np.array(table[:_BATCH]))
    del table
    sorted_path.unlink()
    facts = {"dim": dim, "source": context.config.embeddings.source, "effective_rank": rank}
    writer.close(**facts)
    return facts


def _rows(
    places: Int[np.ndarray, "N 2"], embeddings: Callable[[int], features.Features]
) -> Float[np.ndarray, "N D"]:
    """Embeddings at (slide, row), every file asked once."""
    found: np.ndarray | None = None
    for slide in np.unique(places[:, 0]):
        here, values = places[:, 0] == slide, embeddings(int(slide))
        if found is None:
            found = np.zeros((len(places), values.dim), np.float32)
        if values.dim != found.shape[1]:
            raise features.WeightsError(
                f"{values} must have {found.shape[1]} dimensions as the others, got {values.dim}"
            )
        found[here] = values.rows(places[here, 1])
    return found
