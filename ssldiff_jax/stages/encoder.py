"""Stages `encoder` and `judge`: self-supervised training, and how well its embeddings tell
held-out patches apart. The judge is the same work with its own sizes and seed; nothing else in a
run ever reads it but the evaluation."""

import logging
from typing import Any

from ssldiff_jax.core import files
from ssldiff_jax.data import loader
from ssldiff_jax.encoders import encoder
from ssldiff_jax.evaluation import extractors
from ssldiff_jax.stages import parts, stage
from ssldiff_jax.train import loop
from ssldiff_jax.weights import published

_LOG = logging.getLogger(__name__)

_SHIFTS_PX = (4, 6, 11)
_NUM_TESTED = 256
_NUM_AVERAGED = 4096


def run(context: stage.Context, name: str = "encoder") -> dict[str, Any]:
    """Train, or take published weights; then write `encoder.json`: sizes, hash, retrieval and
    effective rank."""
    config, section = context.config, getattr(context.config, name)
    if name == "encoder" and config.embeddings.source:
        # Its embeddings are all there is of it.
        return {"imported": config.embeddings.source}
    px = config.data.crops.patch_px
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights)
        start = {"encoder": published.load_encoder(file, section.name, section.architecture)}
    batches = loader.patch_batches(
        parts.records(context, "train"),
        side=px + section.model.shift_px,
        dihedral=config.data.crops.dihedral,
        batch_size=section.train.batch_size,
        seed=config.seed + (name == "judge"),
        config=config.data.loader,
    )
    run_ = parts.training_run(context, name)
    params = loop.fit(section.model.task(), batches, section.train, run_, start=start)
    model = encoder.Encoder(section.architecture, params["encoder"])
    if section.model.origin == "mean":
        seen = parts.patches_at(context, "train", _NUM_AVERAGED, px)
        exact = extractors.OfEncoder(name, model)
        model = model.measured_from(exact(seen).mean(axis=0))
    facts = _measure(context, model)
    files.write_json(context.folder(name) / "encoder.json", facts)
    _LOG.info("%s: retrieval %s, effective rank %.1f of %d", name, facts["retrieval_top1"],
                 facts["effective_rank"], facts["dim"])  # fmt: skip
    return facts


def run_judge(context: stage.Context) -> dict[str, Any]:
    """The stage `judge`."""
    return run(context, "judge")


def _measure(context: stage.Context, model: encoder.Encoder) -> dict[str, Any]:
    px = context.config.data.crops.patch_px
    exact = extractors.OfEncoder("measured", model)
    embed = lambda shift: exact(parts.patches_at(context, "test", _NUM_TESTED, px, shift))
    slack = context.config.data.records.record_px - px
    centre = embed(0)
    return {
        "dim": int(centre.shape[1]),
        "hash": parts.encoder_digest(model),
        "origin": model.origin.tolist(),
        "num_tested": len(centre),
        "retrieval_top1": {
            shift: encoder.top1(embed(shift), centre) for shift in _SHIFTS_PX if shift <= slack
        },
        "effective_rank": encoder.effective_rank(centre),
    }
