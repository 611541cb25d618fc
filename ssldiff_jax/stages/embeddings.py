"""Stage `embeddings`: the embedding of every crop, at the orientation of that crop; or those that
were computed elsewhere, in the order of our records."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt

from ssldiff_jax.data import crop_reader, loader, store
from ssldiff_jax.data.precomputed import files as features
from ssldiff_jax.diffusion import cells
from ssldiff_jax.encoders import encoder, variety
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import level_crops, shard_writing, stage
from ssldiff_jax.train import hosts, logs

_LOG = logging.getLogger(__name__)

_PATCHES = 128  # of a batch that is read and embedded
_ROWS = 256  # of a batch of those that were computed elsewhere

_Cells = tuple[UInt[np.ndarray, "N 4 s s bands"], Float[np.ndarray, "N 2"]]


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write an array store of embeddings."""
    if context.config.embeddings.source:
        return hosts.on_first_host("imported embeddings", lambda: _imported(context.artifacts))
    return _computed(context.artifacts)


def _computed(artifacts: artifacts_lib.Artifacts) -> dict[str, Any] | None:
    """What conditions each crop: the embedding, or the tokens, of the crop itself, or those of the
    cells it touches; beside tokens the embedding of each, `whole`, that the second level of the
    prior learns to lead them from."""
    config = artifacts.config
    per_side = config.embeddings.tokens_per_side
    model = artifacts.encoder().with_tokens(per_side).in_batches(_PATCHES)
    # Of cells there are several embeddings, and where these lie.
    sizes = config.denoiser_sizes(model.dim)
    reader = level_crops.reader(artifacts)
    of_crops = _of_cells if config.data.crops.condition_on == "cells" else _of_patches
    fields = (store.Field("embedding", (sizes.stored_dim,), str(sizes.condition_dtype)),)
    if per_side > 1:
        fields += (store.Field("whole", (config.num_cells * model.dim,), "float32"),)
    work = of_crops(reader, model, config.data.loader)
    if sizes.num_levels:
        fields += (store.Field("level", (1,), "int32"),)
        work = _with_levels(work, reader)
    folder = artifacts.folders.of_stage("embeddings")
    shared = store.SharedStore(folder, fields, len(reader), store.SHARD_SIZE)
    shard_writing.write(shared, "embeddings", work)
    if not hosts.is_first():
        return None
    measured = _variety(model, len(reader), _of_patches(reader, model, config.data.loader))
    digest = artifacts_lib.encoder_digest(model)
    facts = {"dim": model.dim, "tokens_per_side": per_side, "encoder": digest, **measured}
    if sizes.num_levels:
        facts["crops_of_levels"] = list(reader.counts)
    shared.close(**facts)
    return facts


def _with_levels(work: shard_writing.Work, reader: crop_reader.LevelReader) -> shard_writing.Work:
    """The same, and the number of each crop's level, from 1."""

    def read(numbers: Sequence[int]) -> tuple[Any, Int[np.ndarray, "N"]]:
        return work.read(numbers), reader.levels(numbers)

    def start(of_crops: tuple[Any, Int[np.ndarray, "N"]]) -> Callable[[], store.Batch]:
        pixels, levels = of_crops
        wait = work.start(pixels)
        return lambda: wait() | {"level": levels[:, None] + 1}

    return dataclasses.replace(work, read=read, start=start)


def _variety(
    model: encoder.Encoder, count: int, of_patches: shard_writing.Work
) -> dict[str, float]:
    """Of embeddings, or tokens, of crops from all over the table, for the manifest; a warning where
    they have collapsed."""
    # From all over: neighbours in the table are of one slide.
    numbers = np.unique(np.linspace(0, count - 1, variety.num_ranked(model.dim)).astype(int))
    embedding = [batch["embedding"] for batch in of_patches.results(numbers.tolist())]
    # Each token by itself.
    embedding = np.concatenate(embedding).reshape(-1, model.dim)
    measured = variety.Variety.of_encoder(embedding, model)
    if measured.collapse:
        _LOG.warning("embeddings: %s", measured.collapse)
    return measured.facts | variety.white_facts(embedding, model)


def _of_patches(
    reader: crop_reader.LevelReader, model: encoder.Encoder, config: loader.LoaderConfig
) -> shard_writing.Work[UInt[np.ndarray, "N s s bands"], store.Batch]:
    """Embeddings of crops."""

    def start(patches: UInt[np.ndarray, "N s s bands"]) -> Callable[[], store.Batch]:
        return _started(model, patches)

    return shard_writing.Work(reader.patches, start, _PATCHES, config)


def _of_cells(
    reader: crop_reader.LevelReader, model: encoder.Encoder, config: loader.LoaderConfig
) -> shard_writing.Work[_Cells, store.Batch]:
    """Conditions of crops: their cells' embeddings, and where these lie."""

    def start(of_crops: _Cells) -> Callable[[], store.Batch]:
        patches, corners = of_crops
        count, each = patches.shape[:2]
        wait = _started(model, patches.reshape(-1, *patches.shape[2:]))
        offsets = cells.cell_offsets(corners)

        def batch() -> store.Batch:
            values = {name: x.reshape(count, each, -1) for name, x in wait().items()}
            packed = {"embedding": cells.pack(values.pop("embedding"), offsets)}
            return packed | {name: x.reshape(count, -1) for name, x in values.items()}

        return batch

    return shard_writing.Work(reader.cells, start, _PATCHES // cells.CELLS_PER_WINDOW, config)


def _started(
    model: encoder.Encoder, patches: UInt[np.ndarray, "N s s bands"]
) -> Callable[[], dict[str, np.ndarray]]:
    """Embedding begun; what waits for it gives the embeddings, or tokens and `whole` embeddings."""
    if model.tokens_per_side == 1:
        wait = model.start(patches)
        return lambda: {"embedding": wait()}
    wait = model.start_with_whole(patches)
    return lambda: dict(zip(("whole", "embedding"), wait(), strict=True))


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
    for start in range(0, len(places), _ROWS):
        # Records are in the order of their slides, so every file is read once.
        embedding = _rows(places[start : start + _ROWS, [0, 3]], embeddings)
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
