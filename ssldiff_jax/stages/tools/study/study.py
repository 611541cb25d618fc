"""Tool `study`: whether generated patches help classifiers of patches and of bags.

The encoder and the denoiser were trained on all training patches without a label; of these,
classifiers get the labels of a fraction. Each of those is regenerated from its embedding, and what
is generated has the label of the real one. Tests are real and held out.
"""

import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import rng, schema
from ssldiff_jax.evaluation.downstream import classifiers, mil
from ssldiff_jax.evaluation.metrics import classification
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import study as study_config
from ssldiff_jax.stages.tools.study import bags, patches
from ssldiff_jax.stages.tools.study import task as study_task
from ssldiff_jax.train import hosts, logs

_LOG = logging.getLogger(__name__)

_TASKS = {"patches": patches.task, "bags": bags.task}
_LEAST_CASES = 8
"""With fewer test cases than these, examples are resampled one by one."""

Classifier = Callable[..., Float[np.ndarray, "M K"]]


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write `results.json`, a row for every task, classifier, fraction and mixture, and
    `curves.json`, the same as lines over the fraction. Hosts share the generation; classifiers are
    trained by the first."""
    config, section, folder = context.config, context.config.study, context.folder("study")
    if config.embeddings.source:
        raise schema.ConfigError(
            "the tool study embeds generated images: config.embeddings.source must be '', got "
            f"{config.embeddings.source!r}"
        )
    # One for all tasks: its programs are traced once, its seeds never come twice.
    regenerator = study_task.Regenerator(
        generator.Generator.of_run(context.artifacts, context.here.mesh), config.seed
    )
    rows, facts, between = [], {}, folder / ".generated"
    for name in section.tasks:
        began = time.monotonic()
        task = _TASKS[name](context.artifacts, regenerator, between)
        generated_after = time.monotonic() - began

        classify = functools.partial(_classified, name, task, config)
        classified = hosts.on_first_host(f"classifiers of {name}", classify)
        if classified:
            rows += classified[0]
            facts[name] = classified[1] | {
                "seconds_of_generation": round(generated_after, 1),
                "seconds": round(time.monotonic() - began, 1),
            }
    if not hosts.is_first():
        return None
    atomic.write_json(folder / "results.json", {"tasks": facts, "rows": rows})
    atomic.write_json(folder / "curves.json", curves(rows))
    shutil.rmtree(between)
    return facts


def _classified(
    name: str, task: study_task.Task, config: run_config.RunConfig
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows of a task, facts about it)."""
    rows, (bootstrap, unit) = [], _bootstrap(task, config.study, config.seed)
    for model, (input_name, classifier) in _classifiers(name, task, config).items():
        inputs = task.inputs[input_name]
        rows += _rows((name, model), task, inputs, classifier, bootstrap, config)
    return rows, {
        "classes": task.counts(),
        "generated": len(task.used),
        "class_agreement": task.class_agreement,
        "resampling_unit": unit,
    }


def _bootstrap(
    task: study_task.Task, section: study_config.StudySection, seed: int
) -> tuple[classification.Bootstrap, str]:
    """What is resampled, and its name: whole cases where there are enough of them."""
    # Examples of one case are alike; of very few cases a resample is often of one or two.
    by_case = len(np.unique(task.test_case)) >= _LEAST_CASES
    case = task.test_case if by_case else np.arange(len(task.test_label))
    bootstrap = classification.Bootstrap.resample(
        task.test_label, case, section.seeds,
        num_samples=section.resamples, level=section.level,
        seed=rng.seed_of(seed, "study/bootstrap"),
    )  # fmt: skip
    return bootstrap, "cases" if by_case else "examples"


def _classifiers(
    name: str, task: study_task.Task, config: run_config.RunConfig
) -> dict[str, tuple[str, Classifier]]:
    """By name, what each sees and itself."""
    count, section = len(task.classes), config.study
    if name == "bags":
        shape = task.inputs["bags"].train.embedding.shape
        make = functools.partial(
            mil.Learner, config=section.bags.network, length=shape[1], dim=shape[2],
            num_classes=count,
        )  # fmt: skip
        return {model: ("bags", make(model)) for model in section.bags.models}
    px, by_model = config.data.crops.patch_px, {}
    for model in section.patches.models:
        if model == "linear":
            by_model[model] = "embedding", classifiers.LinearProbe(count, section.patches.l2)
        else:
            network = classifiers.PatchNetwork(
                model, section.patches.network, image_px=px, num_classes=count
            )
            by_model[model] = "pixels", network
    return by_model


def _rows(
    names: tuple[str, str],
    task: study_task.Task,
    inputs: study_task.Inputs,
    classifier: Classifier,
    bootstrap: classification.Bootstrap,
    config: run_config.RunConfig,
) -> list[dict[str, Any]]:
    """Every fraction and mixture of one classifier."""
    section, rows = config.study, []
    progress = logs.Progress(
        "study " + " ".join(names),
        len(section.fractions) * len(study_task.MIXTURES) * section.seeds,
    )
    for fraction in section.fractions:
        # All mixtures before any row: gains are over real alone, on the same resamples.
        predictions, counts = {}, {}
        for mixture in study_task.MIXTURES:
            predicted = []
            for seed in study_task.seeds_of(section, config.seed):
                real = study_task.subset(task.label, fraction, seed)
                train, label, counts[mixture] = task.mixed(inputs, real, mixture)
                predicted.append(classifier(train, label, inputs.test, seed=seed))
                progress.update()
            predictions[mixture] = np.stack(predicted).astype(np.float64)
        for mixture in study_task.MIXTURES:
            row = dict(zip(("task", "model"), names, strict=True))
            row |= {"fraction": fraction, "mixture": mixture, "seeds": section.seeds}
            row |= counts[mixture] | {"test": len(task.test_label)}
            row |= _scored(predictions[mixture], predictions["real"], bootstrap, mixture)
            rows.append(row)
            _LOG.info(
                "%s %s, %g real, %s: AUC %.3f (%.3f…%.3f), accuracy %.3f", *names, fraction,
                mixture, *row["auc"].values(), row["accuracy"]["mean"],
            )  # fmt: skip
    progress.close()
    return rows


def _scored(
    predicted: Float[np.ndarray, "S M K"],
    of_real: Float[np.ndarray, "S M K"],
    bootstrap: classification.Bootstrap,
    mixture: str,
) -> dict[str, Any]:
    """Every score with its interval and, of mixtures, the gain over real alone with its own."""
    row: dict[str, Any] = {"gain": {}} if mixture != "real" else {}
    for name, score in classification.SCORES.items():
        row[name] = dataclasses.asdict(bootstrap.interval(score, predicted))
        if mixture != "real":
            gain = bootstrap.gain(score, predicted, of_real)
            row["gain"][name] = dataclasses.asdict(gain)
    return row


def curves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines over the fraction: of every task, model, mixture and score."""
    by_key: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        for score in classification.SCORES:
            key = (row["task"], row["model"], row["mixture"], score)
            line = by_key.setdefault(
                key,
                dict(zip(("task", "model", "mixture", "score"), key, strict=True))
                | {name: [] for name in ("fraction", "mean", "low", "high")},
            )
            line["fraction"].append(row["fraction"])
            for name in ("mean", "low", "high"):
                line[name].append(row[score][name])
    return list(by_key.values())
