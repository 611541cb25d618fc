"""Patches as the tool `study` classifies them: real ones, and each regenerated."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ssldiff_jax.core import rng
from ssldiff_jax.evaluation.downstream import classifiers
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.stages.tools.study import classes as study_classes
from ssldiff_jax.stages.tools.study import task as study_task
from ssldiff_jax.train import logs


def task(
    artifacts: artifacts_lib.Artifacts, regenerator: study_task.Regenerator
) -> study_task.Task:
    """One patch of each record, and what is generated from the embeddings of the training ones.

    Embeddings are standardised by all of these, labelled or not, as the encoder was trained on
    them: so the real ones alone are no worse for their being few.
    Raises ValueError where a split shows one class only, and where records have none.
    """
    config, section = artifacts.config, artifacts.config.study.patches
    seed = rng.seed_of(config.seed, "study/chosen")
    train, test = (
        study_classes.Patches.some(artifacts.patches(split), count, seed)
        for split, count in (("train", section.count), ("test", section.count_test))
    )
    classes = study_classes.Classes.of_run(artifacts, train)
    named = classes.of(train)
    class_names, (label, test_label) = classes.numbered(named, classes.of(test))
    used = study_task.used(label, config.study, config.seed)
    # A split of one class is refused before anything is generated.
    without_inputs = study_task.Task(class_names, label, test_label, test.cases, used)
    embedding = regenerator.embed(train.pixels)
    # Of all: three examples know no deviation, and most of what generated patches gained at 1 % was
    # that (.764 → .861; on one scale .838 → .851).
    scaling = classifiers.Scaling.of(embedding)
    progress = logs.Progress("study patches", section.num_generated * len(used))
    generated = [
        _in_blocks(regenerator.regenerate, embedding[used], progress)
        for _ in range(section.num_generated)
    ]
    progress.close()

    def embedded(pixels: study_classes.Pixels) -> np.ndarray:
        return scaling(regenerator.embed(pixels))

    inputs = {
        "pixels": study_task.Inputs(train.pixels[used], generated, test.pixels),
        "embedding": study_task.Inputs(
            scaling(embedding[used]),
            [embedded(pixels) for pixels in generated],
            embedded(test.pixels),
        ),
    }
    classes_of_used = np.array(named)[used]
    return dataclasses.replace(
        without_inputs,
        inputs=inputs,
        class_agreement=_class_agreement(classes, classes_of_used, generated),
    )


def _class_agreement(
    classes: study_classes.Classes, truth: np.ndarray, generated: list[np.ndarray]
) -> float | None:
    """How often a generated patch shows the class of its real one."""
    if classes.of_pixels is None:
        return None
    return float(np.mean([np.array(classes.of_pixels(pixels)) == truth for pixels in generated]))


def _in_blocks(
    regenerate: Callable[[np.ndarray], np.ndarray], embedding: np.ndarray, progress: logs.Progress
) -> np.ndarray:
    parts = []
    for start in range(0, len(embedding), study_task.BLOCK):
        parts.append(regenerate(embedding[start : start + study_task.BLOCK]))
        progress.update(len(parts[-1]))
    return np.concatenate(parts)
