"""Stage `embeddings`: the embedding of every crop, at the orientation of that crop; or those that
were computed elsewhere, in the order of our records."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.data import crops as crops_lib
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.data import store
from ssldiff_jax.data.precomputed import files as features
from ssldiff_jax.diffusion import cells
from ssldiff_jax.encoders import encoder, variety
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import shard_writing, stage
from ssldiff_jax.train import hosts, logs

_LOG = logging.getLogger(__name__)


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write an array store of embeddings."""
    if context.config.embeddings.source:
        return hosts.on_first_host("imported embeddings", lambda: _imported(context.artifacts))
    return _computed(context.artifacts)


def _computed(artifacts: artifacts_lib.Artifacts) -> dict[str, Any] | None:
    """What conditions each crop: the embedding of the crop itself, or of the cells it touches."""
    model, config = artifacts.encoder(), artifacts.config.data.crops
    of_batch = _of_cells if config.condition_on == "cells" else _of_patches
    # Of cells there are several embeddings, and where these lie.
    length = artifacts.config.denoiser.model(model.dim, artifacts.config.num_cells).condition_dim
    source = artifacts.records("train")
    table = artifacts_lib.crop_table(artifacts.config, source)
    fields = (store.Field("embedding", (length,), "float32"),)
    folder = artifacts.folders.of_stage("embeddings")
    shared = store.SharedStore(folder, fields, len(table), store.SHARD_SIZE)

    def write(number: int, progress: logs.Progress) -> None:
        threads = artifacts.config.data.loader.num_threads
        measured = shard_writing.records_of(
            source, table, shared.examples(number), progress, threads
        )
        shared.write(number, ({"embedding": of_batch(b, model, config)} for b in measured))

    shard_writing.each_shard(shared, "embeddings", write)
    if not hosts.is_first():
        return None
    measured = _variety(model, source, table, config)
    facts = {"dim": model.dim, "encoder": artifacts_lib.encoder_digest(model), **measured.facts}
    shared.close(**facts)
    return facts


def _variety(
    model: encoder.Encoder,
    source: records_lib.RecordSource,
    table: crops_lib.CropTable,
    config: crops_lib.CropConfig,
) -> variety.Variety:
    """Of embeddings of crops from all over the table; a warning where they have collapsed."""
    count = variety.num_ranked(model.dim)
    # From all over: neighbours in the table are of one slide.
    numbers = np.unique(np.linspace(0, len(table) - 1, count).astype(int)).tolist()
    embedding = []
    for start in range(0, len(numbers), shard_writing.BATCH):
        batch = [
            (table[i], source[table[i].record])
            for i in numbers[start : start + shard_writing.BATCH]
        ]
        embedding.append(_of_patches(batch, model, config))
    measured = variety.Variety.of(np.concatenate(embedding), model.origin)
    if measured.collapse:
        _LOG.warning("embeddings: %s", measured.collapse)
    return measured


def _of_patches(
    batch, model: encoder.Encoder, config: crops_lib.CropConfig
) -> Float[np.ndarray, "N D"]:
    """Embeddings of crops."""
    margin = config.context_px
    # Context is for the autoencoder: the encoder sees the patch alone.
    inner = np.s_[margin : margin + config.patch_px, margin : margin + config.patch_px]
    side = config.context_patch_px
    return model(np.stack([crop.cut(record, side)[inner] for crop, record in batch]))


def _of_cells(
    batch, model: encoder.Encoder, config: crops_lib.CropConfig
) -> Float[np.ndarray, "N L"]:
    """Conditions of crops: their cells' embeddings, and where these lie."""
    crops_of_batch = [crop.cells(record, config) for crop, record in batch]
    embedding = model(np.concatenate([patches for patches, _ in crops_of_batch]))
    offsets = cells.cell_offsets(np.stack([corner for _, corner in crops_of_batch]))
    return cells.pack(embedding.reshape(len(batch), cells.CELLS_PER_WINDOW, -1), offsets)


def _imported(artifacts: artifacts_lib.Artifacts) -> dict[str, Any]:
    """One embedding a record, and `region_N.npy`, the grids of the references."""
    section, px = artifacts.config.embeddings, artifacts.config.data.crops.patch_px
    folder, patches = (artifacts.folders.of_stage(name) for name in ("embeddings", "patches"))
    embeddings = artifacts.imported_embeddings()
    checked = atomic.read_json(patches / "stage.json")["config"]["inputs"]
    current = section.fingerprint()
    # Rows that were exchanged since would be other patches', and nothing else would tell.
    if checked["embeddings"] != current:
        raise features.WeightsError(
            f"{section.source} changed after its rows were compared with the "
            f"patches: expected {checked['embeddings']}, got {current}; --config.force=patches "
            "compares them again"
        )
    for i, reference in enumerate(atomic.read_json(patches / "regions.json")):
        rows, cols = reference["height"] // px, reference["width"] // px
        grid = _rows(np.array(reference["cells"]), embeddings).reshape(rows, cols, -1)
        atomic.write_atomic(folder / f"region_{i}.npy", lambda path, grid=grid: np.save(path, grid))
    places = artifacts.records("train").places
    dim = embeddings(int(places[0, 0])).dim
    writer = store.StoreWriter(folder, (store.Field("embedding", (dim,), "float32"),))
    progress, ranked = logs.Progress("embeddings", len(places)), []
    # As many as a rank should be of, spread evenly.
    every = max(1, len(places) // variety.num_ranked(dim))
    for start in range(0, len(places), shard_writing.BATCH):
        # Records are in the order of their slides, so every file is read once.
        embedding = _rows(places[start : start + shard_writing.BATCH, [0, 3]], embeddings)
        # So that the multiples of `every`, counted over all, are taken whatever the batch.
        ranked.append(embedding[-start % every :: every])
        writer.append(embedding=embedding)
        progress.update(len(embedding))
    progress.close()
    current = variety.Variety.of(np.concatenate(ranked))
    if current.collapse:
        _LOG.warning("%s: %s", section.source, current.collapse)
    facts = {"dim": dim, "source": section.source, **current.facts}
    writer.close(**facts)
    return facts


def _rows(
    places: Int[np.ndarray, "N 2"], embeddings: Callable[[int], features.Features]
) -> Float[np.ndarray, "N D"]:
    """Embeddings at (slide, row), every file read once."""
    rows: np.ndarray | None = None
    for slide in np.unique(places[:, 0]):
        here, values = places[:, 0] == slide, embeddings(int(slide))
        if rows is None:
            rows = np.zeros((len(places), values.dim), np.float32)
        if values.dim != rows.shape[1]:
            raise features.WeightsError(
                f"{values} must have {rows.shape[1]} dimensions as the others, got {values.dim}"
            )
        rows[here] = values.rows(places[here, 1])
    return rows
