"""Kinds of embeddings that nobody named: k-means of their directions."""

import dataclasses

import numpy as np
import scipy.cluster.vq
from jaxtyping import Float, Int

from ssldiff_jax.core import vectors

# k-means ends in a local minimum: the best of several starts counts.
_STARTS, _STEPS = 10, 100


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """Centres of unit embeddings, the largest cluster first."""

    centres: Float[np.ndarray, "K D"]

    @classmethod
    def of(cls, embedding: Float[np.ndarray, "N D"], count: int, *, seed: int) -> "Clusters":
        """The best of several k-means, each from centres far apart (Arthur, Vassilvitskii 2007).

        Raises ValueError for fewer embeddings than clusters.
        """
        if len(embedding) < count:
            raise ValueError(
                f"{count} clusters need as many embeddings or more, got {len(embedding)}"
            )
        x, generator = vectors.unit(embedding).astype(np.float64), np.random.default_rng(seed)
        tried = []
        for _ in range(_STARTS):
            centres, label = scipy.cluster.vq.kmeans2(
                x, count, iter=_STEPS, minit="++", rng=generator
            )
            tried.append((np.sum((x - centres[label]) ** 2), centres, label))
        _, centres, label = min(tried, key=lambda fit: fit[0])
        # Starts number their clusters at random; sizes give an order that stays.
        order = np.argsort(-np.bincount(label, minlength=count), kind="stable")
        return cls(centres[order])

    def nearest(self, embedding: Float[np.ndarray, "M D"]) -> Int[np.ndarray, "M"]:
        """The cluster whose centre is nearest to each."""
        return scipy.cluster.vq.vq(vectors.unit(embedding).astype(np.float64), self.centres)[0]
