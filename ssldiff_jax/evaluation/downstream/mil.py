"""Classifiers of bags of embeddings: a network of mil_models, fitted and applied."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation.downstream import classifiers, fitting, mil_models
from ssldiff_jax.evaluation.metrics import classification


@dataclasses.dataclass(frozen=True, eq=False)
class Bags:
    """Bags of different sizes, padded to one.

    Attributes:
        embedding: zero where there is no instance.
        known: where there is one.
    """

    embedding: Float[np.ndarray, "N L D"]
    known: Bool[np.ndarray, "N L"]

    @classmethod
    def of(cls, bags: Sequence[Float[np.ndarray, "_ D"]], length: int = 0) -> "Bags":
        """Padded to `length`, by default that of the largest.

        Raises ValueError where there are none, for a bag that is empty or too large, and for
        embeddings that are not finite.
        """
        if not len(bags):
            raise ValueError("a set of bags must hold one or more, got none")
        sizes = [len(bag) for bag in bags]
        length = length or max(sizes)
        if min(sizes) < 1 or max(sizes) > length:
            raise ValueError(
                f"bags must hold 1…{length} embeddings, got from {min(sizes)} to {max(sizes)}"
            )
        # Padded to one length, so that sets of any bags share a program.
        embedding = np.zeros((len(bags), length, bags[0].shape[1]), np.float32)
        for row, bag in zip(embedding, bags, strict=True):
            row[: len(bag)] = bag
        classifiers.require_finite(embedding, "embeddings of bags")
        return cls(embedding, np.arange(length) < np.array(sizes)[:, None])

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, rows: Any) -> "Bags":
        return Bags(self.embedding[rows], self.known[rows])

    def __add__(self, other: "Bags") -> "Bags":
        both = lambda name: np.concatenate([getattr(self, name), getattr(other, name)])
        return Bags(both("embedding"), both("known"))


class Learner:
    """A model of bags of up to L standardised embeddings, fitted from random weights as often as
    asked."""

    def __init__(
        self,
        name: mil_models.Name,
        config: mil_models.MilConfig,
        *,
        length: int,
        dim: int,
        num_classes: int,
    ):
        self._module = config.module(name, num_classes)
        x, is_instance = np.zeros((1, length, dim), np.float32), np.ones((1, length), bool)
        self._fitter = fitting.Fitter(
            lambda key: self._module.init(key, x, is_instance)["params"], self._loss, config.fit
        )
        self._predict = jax.jit(
            lambda params, batch: self._module.apply({"params": params}, batch["x"], batch["known"])
        )

    @property
    def num_traces(self) -> int:
        """Programs that its fits have made."""
        return self._fitter.num_traces

    def fit(self, bags: Bags, label: Int[np.ndarray, "N"], *, seed: int) -> Any:
        """Weights. Raises ValueError for bags of one class."""
        classification.require_classes(label, "the training bags")
        return self._fitter.fit(_batch(bags) | {"label": label}, seed=seed)

    def predict(self, params: Any, bags: Bags) -> mil_models.MILOutput:
        """Probabilities of bags, and attention to their instances, as NumPy arrays."""
        return fitting.in_batches(
            self._predict, params, _batch(bags), self._fitter.config.batch_size
        )

    def __call__(
        self, train: Bags, label: Int[np.ndarray, "N"], held_out: Bags, *, seed: int
    ) -> Float[np.ndarray, "M K"]:
        """Probabilities of held-out bags."""
        return self.predict(self.fit(train, label, seed=seed), held_out).probability

    def _loss(self, params: Any, batch: Any, key: arrays.Key) -> jax.Array:
        return self._module.apply(
            {"params": params}, batch["x"], batch["known"], batch["label"],
            method="loss", rngs={"dropout": key},
        )  # fmt: skip


def _batch(bags: Bags) -> dict[str, np.ndarray]:
    return {"x": bags.embedding, "known": bags.known}
