"""Stage `embeddings`: the embedding of every crop, at the orientation of that crop; or those that
were computed elsewhere, in the order of our records."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import files
from ssldiff_jax.data import store
from ssldiff_jax.encoders import encoder
from ssldiff_jax.stages import parts, runner
from ssldiff_jax.train import logs
from ssldiff_jax.weights import features

_BATCH = 256


def cropped(context: runner.Context, name: str) -> Iterator[np.ndarray]:
    """Batches of oriented training crops with their context, uint8, in the order of the table."""
    source = parts.records(context, "train")
    table = parts.crop_table(context.config, source)
    side = context.config.data.crops.context_patch_px
    progress = logs.Progress(name, len(table))
    for start in range(0, len(table), _BATCH):
        crops = [table[i] for i in range(start, min(start + _BATCH, len(table)))]
        yield np.stack([crop.cut(source[crop.record], side) for crop in crops])
        progress.update(len(crops))
    progress.close()


def run(context: runner.Context) -> dict[str, Any]:
    """Write an array store of embeddings."""
    return _imported(context) if context.config.embeddings.source else _computed(context)


def _computed(context: runner.Context) -> dict[str, Any]:
    model = parts.load_encoder(context)
    dim, margin = model.dim, context.config.data.crops.context_px
    writer = store.StoreWriter(
        context.folder("embeddings"), (store.Field("embedding", (dim,), "float32"),)
    )
    rank = 0.0
    for patches in cropped(context, "embeddings"):
        inner = patches[:, margin : patches.shape[1] - margin, margin : patches.shape[2] - margin]
        embedding = model(np.ascontiguousarray(inner))
        rank = rank or encoder.effective_rank(embedding)
        writer.append(embedding=embedding)
    facts = {"dim": dim, "encoder": parts.encoder_digest(model), "effective_rank": rank}
    writer.close(**facts)
    return facts


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
