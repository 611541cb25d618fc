"""What the tool `study` teaches and tests with: examples, their labels, and mixtures of them."""

import dataclasses
import functools
import itertools
import operator
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import digests, rng
from ssldiff_jax.evaluation.downstream import classifiers
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.evaluation.metrics import classification
from ssldiff_jax.generation import generator
from ssldiff_jax.runs.config import study as study_config
from ssldiff_jax.train import hosts

SPLITS = ("train", "test")
MIXTURES = ("real", "synthetic", "real + synthetic")
BLOCK = 512
"""Cells that are embedded and generated together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What a classifier is given: arrays, or bags, of the U used training and M test examples.

    Attributes:
        train: real ones.
        generated: one set of U for each repetition; example i has the label of the real one i.
        test: real ones of the held-out split.
    """

    train: Any
    generated: list[Any]
    test: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Something to classify.

    Attributes:
        classes: names, by label.
        label: of N training examples.
        test_label: of M test examples.
        test_case: a number for the case of each.
        used: the U training examples that some fraction and seed uses, in order; no other is
            regenerated.
        inputs: by what it is that a classifier sees.
        class_agreement: the part of generated examples that show the class of their real one; None
            where pixels alone do not show it.
    """

    classes: tuple[str, ...]
    label: Int[np.ndarray, "N"]
    test_label: Int[np.ndarray, "M"]
    test_case: Int[np.ndarray, "M"]
    used: Int[np.ndarray, "U"]
    inputs: dict[str, Inputs] = dataclasses.field(default_factory=dict)
    class_agreement: float | None = None

    def __post_init__(self):
        for split, label in zip(SPLITS, (self.label, self.test_label), strict=True):
            classification.require_classes(
                label, f"the {split} split of classes {', '.join(self.classes)}"
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """Examples of every class in both splits."""
        return {
            split: {name: int(np.sum(label == k)) for k, name in enumerate(self.classes)}
            for split, label in zip(SPLITS, (self.label, self.test_label), strict=True)
        }

    def mixed(
        self, inputs: Inputs, real: Int[np.ndarray, "n"], mixture: str
    ) -> tuple[Any, Int[np.ndarray, "m"], dict[str, int]]:
        """(training examples, their labels, counts) of a mixture of some of the real examples and
        those generated from these."""
        # `used` is sorted, and what is generated lies in its order.
        rows = np.searchsorted(self.used, real)
        sets = [inputs.train[rows]] if mixture != "synthetic" else []
        generated = (
            [] if mixture == "real" else [regenerated[rows] for regenerated in inputs.generated]
        )
        both = [*sets, *generated]
        is_array = isinstance(both[0], np.ndarray)
        train = np.concatenate(both) if is_array else functools.reduce(operator.add, both)
        counts = {"real": len(real) * len(sets), "synthetic": len(real) * len(generated)}
        return train, np.tile(self.label[real], len(both)), counts


def subset(label: Int[np.ndarray, "N"], fraction: float, seed: int) -> Int[np.ndarray, "n"]:
    """A fraction of the examples of every class, one at least; in order."""
    generator_, chosen = np.random.default_rng(seed), []
    for k in np.unique(label):
        rows = generator_.permutation(np.flatnonzero(label == k))
        # By class, so that small fractions have examples of each.
        chosen.append(rows[: max(round(fraction * len(rows)), 1)])
    return np.sort(np.concatenate(chosen))


def seeds_of(section: study_config.StudySection, seed: int) -> list[int]:
    """The seeds of a study in a run of a seed."""
    return [rng.seed_of(seed, "study/repetition", i) for i in range(section.seeds)]


def used(
    label: Int[np.ndarray, "N"], section: study_config.StudySection, seed: int
) -> Int[np.ndarray, "U"]:
    """The examples that some fraction and some seed of a study uses, in order: those of the first
    host, as clusters of what another embedded may differ in an example."""
    every = itertools.product(section.fractions, seeds_of(section, seed))
    is_used = np.zeros(len(label), bool)
    is_used[np.concatenate([subset(label, *which) for which in every])] = True
    return np.flatnonzero(hosts.of_first(is_used))


def folder_of(used: Int[np.ndarray, "U"], between: pathlib.Path) -> pathlib.Path:
    """Where what is generated from these examples is kept: a study that was killed before the judge
    or a table of labels changed may have used others."""
    return between / digests.of_values(used.tolist())


class Regenerator:
    """Real cells to embeddings, and to cells regenerated from those."""

    def __init__(self, model: generator.Generator, seed: int):
        self._model = model
        # Endless, and the same in every run of the seed.
        self._seeds = (rng.seed_of(seed, "study/generated", i) for i in itertools.count())

    def embed(self, patches: np.ndarray) -> Float[np.ndarray, "N D"]:
        """By the run's encoder. Raises ValueError for embeddings that are not finite."""
        embedding = networks.OfEncoder("encoder", self._model.encoder)(patches)
        classifiers.require_finite(embedding, "embeddings of the run's encoder")
        return embedding

    def condition(
        self, patches: np.ndarray, embedding: Float[np.ndarray, "N D"]
    ) -> Float[np.ndarray, "N E"]:
        """What regenerates patches of these embeddings: that, or their tokens where the denoiser
        takes several."""
        encoder = self._model.condition_encoder
        if encoder is self._model.encoder:
            return embedding
        return networks.OfEncoder("tokens", encoder)(patches)

    def seeds(self, count: int) -> list[int]:
        """Seeds that were not given before."""
        return list(itertools.islice(self._seeds, count))

    def regenerate(self, condition: Float[np.ndarray, "N E"], seed: int) -> np.ndarray:
        """A patch for each condition."""
        return self._model.sample_patches(condition, seed=seed)
