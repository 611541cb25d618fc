"""How far apart generated patches of one embedding are, beside real ones."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ssldiff_jax.core import rng, vectors
from ssldiff_jax.evaluation.metrics import diversity
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import patch_samples

_EMBEDDINGS = 256  # at most: the interval is then some 5 % wide
_VARIATIONS = 4

Features = Float[np.ndarray, "N D"]
JudgeFn = Callable[[UInt8[np.ndarray, "N s s 3"]], Features]


def compare(
    model: generator.Generator,
    held_out: patch_samples.Sample,
    judge: JudgeFn,
    by_network: Mapping[str, tuple[Features, Features]],
    of_training: Mapping[str, Features],
    seed: int,
) -> dict[str, Any]:
    """Several patches of each of some held-out patches' embeddings, by the features of `judge`.

    Features of real and generated held-out patches, and those of training patches, are by network:
    "judge" and "encoder".
    """
    # Half as many as are regenerated: those of a short evaluation cost no more than these.
    count = min(_EMBEDDINGS, max(len(held_out) // 2, 1))
    chosen = np.linspace(0, len(held_out) - 1, count).astype(int)
    pixels = np.stack([held_out.patch(number)[1] for number in chosen.tolist()])
    embedding = np.repeat(model.encoder(pixels), _VARIATIONS, axis=0)
    noise = rng.seed_of(seed, "evaluate/variations")
    features = judge(model.sample_patches(embedding, seed=noise))
    # Directions, which are all of an embedding that the denoiser is given.
    real = [
        diversity.Real(vectors.unit(np.asarray(embedding)), judged)
        for embedding, judged in (
            (by_network["encoder"][0][chosen], by_network["judge"][0][chosen]),
            (of_training["encoder"], of_training["judge"]),
        )
    ]
    return dataclasses.asdict(diversity.compare(features.reshape(count, _VARIATIONS, -1), *real))
