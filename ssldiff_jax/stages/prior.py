"""Stage `prior`: train p(grid | condition) on white grids, and hold what it draws against real ones
and against two simpler ways."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssldiff_jax.core import digests
from ssldiff_jax.data import loader, store
from ssldiff_jax.evaluation.metrics import grids as judging
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import prior_sampler
from ssldiff_jax.prior import conditions
from ssldiff_jax.runs import artifacts, stage
from ssldiff_jax.train import hosts, loop

_LOG = logging.getLogger(__name__)

_JUDGED, _COMPARED = 512, 4096


def run(context: stage.Context) -> dict[str, Any]:
    """Train, then write `results.json`: figures of grids that are drawn as held-out ones are
    told."""
    config, section = context.config, context.config.prior
    if config.embeddings.source:
        return {"imported": config.embeddings.source}
    grids = store.Store(context.folder("grids") / "train")
    spec = artifacts.condition_spec(grids.facts["spec"])
    batches = loader.cached_batches(
        grids,
        batch_size=section.train.batch_size,
        seed=config.seed + 4,
        config=config.data.loader,
    )
    run_ = artifacts.training_run(context, "prior")
    params = loop.fit(section.task(spec), batches, section.train, run_)
    results = _judge(context, grids, spec)
    if hosts.is_first():
        atomic.write_json(context.folder("prior") / "results.json", results)
    for name, figures in results.items():
        told = ", ".join(f"{key} {_said(value)}" for key, value in figures.items())
        _LOG.info("prior, %s: %s", name, told)
    return {"prior": digests.of_params(params), "results": results}


def _said(figure: float | Mapping[str, Any] | None) -> str:
    """A number; of a distance that with its bias taken off, or what there is."""
    if figure is None:
        return "too few to measure"
    if isinstance(figure, float):
        return f"{figure:.3g}"
    if figure["uncorrected"] is None:
        return figure["interval"]
    if figure["corrected"] is None:
        return f"{figure['uncorrected']:.3g} (uncorrected; {figure['interval']})"
    return f"{figure['corrected']:.3g} ({figure['low']:.3g} … {figure['high']:.3g})"


def _judge(
    context: stage.Context, training: store.Store, spec: conditions.ConditionSpec
) -> dict[str, dict[str, Any]]:
    """Figures of the prior, of cells that are drawn apart, and of the training grid whose
    condition is nearest; `agreement` is that of labels, where there are any."""
    held_out = store.Store(context.folder("grids") / "test")
    real, asked = _read(held_out, _JUDGED)
    seen, told = _read(training, _COMPARED)
    model = prior_sampler.PriorSampler.of_run(context)
    generator = np.random.default_rng(0)
    apart = seen.reshape(-1, seen.shape[-1])
    order = generator.permutation(len(asked))
    draw = lambda condition: model.white.apply(model.sample(condition, seed=context.config.seed))
    words = spec.labels and spec.text_phrases
    ways = {
        "prior": draw(asked),
        "prior, conditions shuffled": draw(asked[order]),
        **(
            {"prior, conditioned on text alone": draw(spec.keep_only(asked, "text"))}
            if words
            else {}
        ),
        "independent cells": apart[generator.integers(len(apart), size=real.shape[:3])],
        "nearest training grid": seen[_nearest(asked, told, spec)],
        "real": real,
    }
    results = {}
    # What tells labels from grids learns from one half; the other half is asked for.
    half = len(real) // 2
    labels = spec.unpack(asked)["labels"]
    features = {name: judging.principal(grids, seen) for name, grids in ways.items()}
    for name, grids in ways.items():
        found = dataclasses.asdict(judging.compare(grids, real, seen)) if name != "real" else {}
        if spec.labels:
            probe = (features["real"][:half], labels[:half])
            found["agreement"] = judging.agreement(labels[half:], features[name][half:], probe)
        results[name] = found
    return results


def _read(grids: store.Store, count: int) -> tuple[np.ndarray, np.ndarray]:
    batch = grids.batch(range(min(count, len(grids))))
    return batch["grid"].astype(np.float32), batch["condition"].astype(np.float32)


def _nearest(asked: np.ndarray, told: np.ndarray, spec: conditions.ConditionSpec) -> np.ndarray:
    """For each condition the nearest of `told`: by labels and numbers, or, without, by texts."""
    kinds = ("labels", "numbers") if spec.labels or spec.numbers else ("text",)

    def said(condition: np.ndarray) -> np.ndarray:
        parts_ = spec.unpack(condition)
        return np.concatenate([parts_[kind] for kind in kinds], axis=1)

    a, b = (said(condition).astype(np.float64) for condition in (asked, told))
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return square.argmin(axis=1)
