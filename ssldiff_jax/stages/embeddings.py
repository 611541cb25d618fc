"""Stage `embeddings`: the embedding of every crop, at the orientation of that crop."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ssldiff_jax.data import store
from ssldiff_jax.encoders import encoder
from ssldiff_jax.stages import parts, runner
from ssldiff_jax.train import logs

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
