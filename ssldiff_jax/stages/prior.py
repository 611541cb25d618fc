"""Stage `prior`: train p(grid | condition) on whitened grids, and compare its samples with real
grids and with two baselines."""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssldiff_jax.core import digests, rng, tasks, vectors
from ssldiff_jax.data import loader, store
from ssldiff_jax.evaluation.metrics import grids as grid_metrics
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import grid_network, prior_sampler
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import amounts, host_arrays, stage, training_tasks
from ssldiff_jax.stages.evaluate import grid_rows
from ssldiff_jax.train import hosts, looks, loop

# Training grids that the prior's are compared with.
_COMPARED = 4096


def run(context: stage.Context) -> dict[str, Any] | None:
    """Train, then write `results.json`: figures of grids sampled with the conditions of held-out
    ones. Hosts share the batches of these; the first one measures them."""
    config, section = context.config, context.config.prior
    if config.embeddings.source:
        return {"imported": config.embeddings.source}
    grids = store.Store(context.folder("grids") / "train")
    task = training_tasks.training_task("prior", config, context.artifacts)
    batches = loader.cached_batches(
        grids,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, "prior/data"),
        config=config.data.loader,
    )
    run_ = training_tasks.training_run(context, "prior")
    held_out = store.Store(context.folder("grids") / "test")
    look = _look(held_out, task, section.train.compute.dtype)
    params = loop.fit(task, batches, section.train, run_, look=look)
    model = prior_sampler.PriorSampler.of_run(context.artifacts)
    digest, seed = digests.of_params(params), rng.seed_of(config.seed, "prior/evaluation")
    generator = np.random.default_rng(seed)
    between = context.folder("prior") / ".sampled"
    # By the weights: a training that goes on has no use for what was sampled before.
    sampled = _sample(model, held_out, between / digest, generator, seed=seed)

    def write() -> dict[str, Any]:
        results = _evaluate(model, sampled, grids, held_out, generator)
        atomic.write_json(context.folder("prior") / "results.json", results)
        grid_rows.log("prior", results)
        shutil.rmtree(between)
        return {"prior": digest, "results": results}

    return hosts.on_first_host("figures of the prior", write)


def _look(held_out: store.Store, task: tasks.Task, dtype: str) -> looks.Look | None:
    """The loss of held-out grids; None where there are none."""
    count = min(len(held_out), looks.MOST_EXAMPLES)
    if not count:
        return None
    batch = held_out.batch(range(count)) | {"index": np.arange(count, dtype=np.int32)}
    loss = looks.held_out_loss(task, batch, dtype)
    return lambda params, extra: looks.Seen({"held_out_loss": loss(params, extra)})


def _sample(
    model: prior_sampler.PriorSampler,
    held_out: store.Store,
    folder: pathlib.Path,
    generator: np.random.Generator,
    *,
    seed: int,
) -> dict[str, host_arrays.HostArrays]:
    """Batches of grids with the conditions of held-out ones, with those of others, and, where there
    are other conditions beside it, with the text alone."""
    spec, (_, requested) = model.spec, _read(held_out, amounts.PRIOR_COMPARED)
    # The conditions of other grids: a prior that ignores them loses nothing by it.
    order = generator.permutation(len(requested))
    by_source = {"prior": requested, "prior, conditions shuffled": requested[order]}
    # Without labels the text is the whole condition, and this is the first row.
    if spec.labels and spec.text_phrases:
        by_source["prior, conditioned on text alone"] = spec.keep_only(requested, "text")
    count, sampled = grid_network.num_batches(len(requested)), {}
    for number, (source, condition) in enumerate(by_source.items()):
        sample = functools.partial(model.sample_part, condition, seed=seed)
        sampled[source] = host_arrays.HostArrays(folder / str(number), count)
        sampled[source].make(f"grids by the {source}", sample)
    return sampled


def _evaluate(
    model: prior_sampler.PriorSampler,
    sampled: Mapping[str, host_arrays.HostArrays],
    training: store.Store,
    held_out: store.Store,
    generator: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    """Figures of the prior and of two baselines: independently sampled training cells, and the
    training grid whose condition is nearest. `agreement` is that with labels, where there are
    any."""
    spec = model.spec
    real, requested = _read(held_out, amounts.PRIOR_COMPARED)
    training_grids, training_conditions = _read(training, _COMPARED)
    apart = training_grids.reshape(-1, training_grids.shape[-1])
    grids_by_source = {
        **{name: model.white.apply(np.concatenate(list(s))) for name, s in sampled.items()},
        # Cells that are right one by one, and know nothing of their neighbours.
        "independent cells": apart[generator.integers(len(apart), size=real.shape[:3])],
        "nearest training grid": training_grids[_nearest(requested, training_conditions, spec)],
        "real": real,
    }
    results = {}
    # The regression that predicts labels from grids is fitted on one half and tested on the other.
    half = len(real) // 2
    labels = spec.unpack(requested)["labels"]
    features = {
        name: grid_metrics.principal(grids, training_grids)
        for name, grids in grids_by_source.items()
    }
    for name, grids in grids_by_source.items():
        figures = (
            dataclasses.asdict(grid_metrics.compare(grids, real, training_grids))
            if name != "real"
            else {}
        )
        if spec.labels:
            probe = grid_metrics.Probe.fit(features["real"][:half], labels[:half])
            figures["agreement"] = grid_metrics.agreement(
                labels[half:], features[name][half:], probe
            )
        results[name] = figures
    return results


def _read(grids: store.Store, count: int) -> tuple[np.ndarray, np.ndarray]:
    batch = grids.batch(range(min(count, len(grids))))
    return batch["grid"].astype(np.float32), batch["condition"].astype(np.float32)


def _nearest(
    requested: np.ndarray, candidates: np.ndarray, spec: conditions.ConditionSpec
) -> np.ndarray:
    """For each condition the nearest of `candidates`: by labels and numbers, or, without, by
    texts."""
    kinds = ("labels", "numbers") if spec.labels or spec.numbers else ("text",)

    def described(condition: np.ndarray) -> np.ndarray:
        parts_ = spec.unpack(condition)
        return np.concatenate([parts_[kind] for kind in kinds], axis=1)

    a, b = (described(condition).astype(np.float64) for condition in (requested, candidates))
    return vectors.squared_distances(a, b).argmin(axis=1)
