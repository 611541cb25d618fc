"""Patches as the tool `study` classifies them: real ones, and each regenerated."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import rng
from ssldiff_jax.evaluation.downstream import classifiers
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import host_arrays
from ssldiff_jax.stages.tools.study import classes as study_classes
from ssldiff_jax.stages.tools.study import task as study_task
from ssldiff_jax.train import hosts


def task(
    artifacts: artifacts_lib.Artifacts, regenerator: study_task.Regenerator, between: pathlib.Path
) -> study_task.Task | None:
    """One patch of each record, and what is generated from the embeddings of the training ones:
    by all hosts, in the folder `between`. None where this host is not the first.

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
    kept = study_task.folder_of(used, between)
    condition = regenerator.condition(train.pixels, embedding)[used]
    made = _generated(regenerator, condition, section.num_generated, kept)

    def embedded() -> study_task.Task:
        # Of all: three examples know no deviation, and most of what generated patches gained at 1 %
        # was that (.764 → .861; on one scale .838 → .851).
        scaling = classifiers.Scaling.of(embedding)
        scaled = lambda pixels: scaling(regenerator.embed(pixels))
        generated = [np.concatenate(list(blocks)) for blocks in made]
        see = config.data.reading.multiband.shown_view
        inputs = {
            "pixels": study_task.Inputs(
                see(train.pixels[used]), [see(pixels) for pixels in generated], see(test.pixels)
            ),
            "embedding": study_task.Inputs(
                scaling(embedding[used]),
                [scaled(pixels) for pixels in generated],
                scaled(test.pixels),
            ),
        }
        agreement = _class_agreement(classes, np.array(named)[used], generated)
        return dataclasses.replace(without_inputs, inputs=inputs, class_agreement=agreement)

    return hosts.on_first_host("embeddings of the study's patches", embedded)


def _generated(
    regenerator: study_task.Regenerator,
    condition: Float[np.ndarray, "N E"],
    repetitions: int,
    between: pathlib.Path,
) -> list[host_arrays.HostArrays]:
    """Blocks of patches of their conditions, for each repetition."""
    starts, made = range(0, len(condition), study_task.BLOCK), []
    for repetition in range(repetitions):
        seeds = regenerator.seeds(len(starts))

        def regenerate(number: int, seeds=seeds) -> np.ndarray:
            first = starts[number]
            block = condition[first : first + study_task.BLOCK]
            return regenerator.regenerate(block, seeds[number])

        made.append(host_arrays.HostArrays(between / f"patches_{repetition}", len(starts)))
        made[-1].make("blocks of study patches", regenerate)
    return made


def _class_agreement(
    classes: study_classes.Classes, truth: np.ndarray, generated: list[np.ndarray]
) -> float | None:
    """How often a generated patch shows the class of its real one."""
    if classes.of_pixels is None:
        return None
    return float(np.mean([np.array(classes.of_pixels(pixels)) == truth for pixels in generated]))
