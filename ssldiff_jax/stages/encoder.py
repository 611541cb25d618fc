"""Stages `encoder` and `judge`: self-supervised training, and how well its embeddings separate
held-out patches. The judge is the same work with its own sizes and seed; nothing else in a
run ever reads it but the evaluation."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt, UInt8

from ssldiff_jax.core import layers, moments, rng
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import loader, records
from ssldiff_jax.encoders import augment, encoder, variety
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.formats import atomic, hub
from ssldiff_jax.runs import artifacts, level_crops, stage, training_tasks
from ssldiff_jax.train import loop
from ssldiff_jax.weights import published

_LOG = logging.getLogger(__name__)

_SHIFTS_PX = (4, 6, 11)
_NUM_TESTED = 256
_BLOCK = 512  # patches in memory
_BY_CHANCE = 3  # patches that are found among any number
# Of the largest: directions that vary less say little, and are not stretched to as much.
_LEAST_VARIANCE = 1e-3
# Training patches that the mean is of.
_NUM_AVERAGED = 4096


def run(context: stage.Context, name: str = "encoder") -> dict[str, Any]:
    """Train, or take published weights; then write `encoder.json`: sizes, hash, retrieval and
    effective rank. Warns of embeddings that have collapsed, or carry no information."""
    config, section = context.config, getattr(context.config, name)
    if name == "encoder" and config.embeddings.source:
        # Its embeddings are all there is of it.
        return {"imported": config.embeddings.source}
    # Both are networks of RGB, whatever bands records have.
    px, see = config.data.crops.patch_px, config.data.reading.multiband.view_of(name)
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights)
        start = {"encoder": published.load_encoder(file, section.name, section.architecture)}
    train, held_out = (
        level_crops.training_records(context.artifacts),
        context.artifacts.records("test"),
    )
    batches = loader.patch_batches(
        *train,
        side=px + section.model.shift_px,
        dihedral=config.data.crops.dihedral,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, f"{name}/data"),
        config=config.data.loader,
        see=see,
    )
    run_ = training_tasks.training_run(context, name)
    task = training_tasks.training_task(name, config)
    params = loop.fit(task, batches, section.train, run_, start=start)
    model = encoder.Encoder(section.architecture, params["encoder"])
    # Features before a projection head lie in a cone, in which all cosines are high; from their
    # mean they spread.
    if section.model.origin != "zero":
        # As many of each level, as in training.
        each = -(-_NUM_AVERAGED // len(train))
        patches = np.concatenate([see(artifacts.patches_at(level, each, px)) for level in train])
        # By products exact to float32, so that the origin does not depend on the device.
        exact = networks.OfEncoder(name, model)
        sums = moments.Moments.of(exact(patches), "embeddings")
        model = model.measured_from(sums.mean)
        if section.model.origin == "white":
            model = model.whitened(sums.whitening(_LEAST_VARIANCE)[0])
            path = context.folder(name) / artifacts.WHITENING
            atomic.write_atomic(path, lambda path: np.save(path, model.whitening))
        if name == "encoder" and model.token_origin is None:
            model = model.measured_from(model.origin, tokens=_token_origin(model, patches))
    facts = _measure(held_out, model, name, config.data, section.model.jitter)
    facts |= _token_facts(model)
    atomic.write_json(context.folder(name) / "encoder.json", facts)
    _LOG.info("%s: retrieval %s, of views %.3f, effective rank %.1f of %d (white noise %.1f)",
              name, facts["retrieval_top1"], facts["retrieval_of_views"], facts["effective_rank"],
              facts["dim"], facts["effective_rank_of_noise"])  # fmt: skip
    return facts | hub.noted(weights=section.weights)


def run_judge(context: stage.Context) -> dict[str, Any]:
    """The stage `judge`."""
    return run(context, "judge")


def _measure(
    held_out: records.RecordSource,
    model: encoder.Encoder,
    name: str,
    data: data_config.DataConfig,
    jitter: augment.ColorJitter,
) -> dict[str, Any]:
    """Retrieval among held-out patches: of a patch moved, where records are larger than patches,
    and of a view of it; and how many directions embeddings take."""
    px = data.crops.patch_px
    see = data.reading.multiband.view_of(name)
    patches = functools.partial(artifacts.patches_at, held_out, _NUM_TESTED, px)
    slack, centred = data.records.record_px - px, see(patches(0))
    exact = networks.OfEncoder("measured", model)
    centre = exact(centred)
    embedding = _embeddings(held_out, lambda seen: exact(see(seen)), model.dim, px)
    measured = variety.Variety.of_encoder(embedding, model)
    by_view = encoder.top1(exact(_views(centred, jitter)), centre)
    if measured.collapse:
        _LOG.warning("%s: %s", name, measured.collapse)
    elif by_view <= _BY_CHANCE / len(centre):
        _LOG.warning("%s: augmented views retrieve %.3g of %d patches, no more than by chance: "
                     "the embeddings are uninformative", name, by_view, len(centre))  # fmt: skip
    return {
        "dim": int(centre.shape[1]),
        "hash": artifacts.encoder_digest(model.seeing(see)),
        "origin": model.origin.tolist(),
        "num_tested": len(centre),
        "retrieval_top1": {
            shift: encoder.top1(exact(see(patches(shift))), centre)
            for shift in _SHIFTS_PX
            if shift <= slack
        },
        "retrieval_of_views": by_view,
        **measured.facts,
        **variety.white_facts(embedding, model),
    }


def _token_origin(
    model: encoder.Encoder, patches: UInt8[np.ndarray, "N s s 3"]
) -> Float[np.ndarray, "D"]:
    """The mean of tokens, where embeddings are no means of them: so it is known whatever
    `config.embeddings.tokens_per_side` becomes, and no encoder is trained again for it."""
    architecture = model.architecture.of_one_token
    exact = networks.OfEncoder("tokens", encoder.Encoder(architecture, model.params))
    return exact(patches).mean(axis=0)


def _token_facts(model: encoder.Encoder) -> dict[str, Any]:
    """The origin of tokens where it is another than that of embeddings."""
    tokens = model.token_origin
    if tokens is None or tokens is model.origin:
        return {}
    return {"token_origin": tokens.tolist()}


def _embeddings(
    held_out: records.RecordSource,
    embed: Callable[[UInt[np.ndarray, "N s s bands"]], Float[np.ndarray, "N D"]],
    dim: int,
    px: int,
) -> Float[np.ndarray, "N D"]:
    """Of as many held-out patches as a rank should be of, or of all; some in memory at a time."""
    # Ten a dimension: of fewer even white noise seems to have collapsed (256 vectors of 384
    # numbers: rank 183).
    count, embeddings = variety.num_ranked(dim), []
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        embeddings.append(embed(artifacts.patches_at(held_out, stop, px, start=start)))
        # There are no more patches.
        if len(embeddings[-1]) < stop - start:
            break
    return np.concatenate(embeddings)


def _views(
    patches: UInt8[np.ndarray, "N s s 3"], jitter: augment.ColorJitter
) -> UInt8[np.ndarray, "N s s 3"]:
    """The inner 7/8 of each patch, enlarged, its colours changed as training changes them: another
    view that needs nothing of what lies around. It is never rotated: embeddings depend on
    orientation."""
    side = patches.shape[1]
    margin = max(1, side // 16)
    inner = layers.to_image(patches[:, margin : side - margin, margin : side - margin])
    # Back to the size that the encoder takes.
    large = jax.image.resize(inner, patches.shape, "linear")
    keys = jax.random.split(jax.random.key(0), len(patches))
    return np.asarray(layers.to_uint8(jax.vmap(jitter)(keys, large)))
