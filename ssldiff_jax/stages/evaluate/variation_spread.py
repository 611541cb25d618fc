"""How far apart generated patches of one embedding are, beside real ones."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt

from ssldiff_jax.core import rng, vectors
from ssldiff_jax.evaluation.features import networks as extractors
from ssldiff_jax.evaluation.metrics import diversity
from ssldiff_jax.generation import generator
from ssldiff_jax.runs import patch_samples

VARIATIONS = 4
"""Of each embedding."""
_EMBEDDINGS = 256  # at most: the interval is then some 5 % wide

Features = Float[np.ndarray, "N D"]
JudgeFn = Callable[[UInt[np.ndarray, "N s s bands"]], Features]


def condition_network(
    model: generator.Generator, by_encoder: extractors.Extractor
) -> extractors.Extractor:
    """What gives of patches that which the denoiser is conditioned on: the encoder, or the same
    giving tokens."""
    encoder = model.condition_encoder
    if encoder.tokens_per_side == 1:
        return by_encoder
    return extractors.OfEncoder(f"tokens-{encoder.tokens_per_side}", encoder)


def num_embeddings(num_held_out: int) -> int:
    """How many patches have variations, of those that are regenerated."""
    # Half: a short evaluation stays short.
    return min(_EMBEDDINGS, max(num_held_out // 2, 1))


def compare(
    model: generator.Generator,
    held_out: patch_samples.Sample,
    judge: JudgeFn,
    of_held_out: Features,
    of_training: Mapping[str, Float[np.ndarray, "M _"]],
    seed: int,
) -> dict[str, Any]:
    """Several patches of what conditions each of some held-out patches, by the features of `judge`;
    `of_held_out` are those of all real ones, `of_training` "judge" and "condition" of training
    patches."""
    count = num_embeddings(len(held_out))
    chosen = np.linspace(0, len(held_out) - 1, count).astype(int)
    pixels = np.stack([held_out.patch(number)[1] for number in chosen.tolist()])
    condition = model.condition_encoder(pixels)
    noise = rng.seed_of(seed, "evaluate/variations")
    patches = model.sample_patches(np.repeat(condition, VARIATIONS, axis=0), seed=noise)
    # Directions, which are all of an embedding that the denoiser is given.
    of = lambda condition, judged: diversity.Real(vectors.unit(np.asarray(condition)), judged)
    spread = diversity.compare(
        judge(patches).reshape(count, VARIATIONS, -1),
        of(condition, of_held_out[chosen]),
        of(of_training["condition"], of_training["judge"]),
    )
    return dataclasses.asdict(spread)
