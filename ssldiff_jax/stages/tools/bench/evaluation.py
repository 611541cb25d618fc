"""Part of the tool `bench`: what it costs to judge, from pixels to features to distances."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ssldiff_jax.core import machine, memory, moments
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.evaluation.metrics import (
    frechet,
    frechet_interval,
    intervals,
    kid,
    precision_recall,
)
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.stages.tools.bench import random_weights, results
from ssldiff_jax.weights import published


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is evaluated.

    Attributes:
        patches: that features are taken of.
        gaussian: features on each side of a Fréchet distance.
        pairs: features on each side of figures of all pairs.
        dim: of features.
        repetitions: of each measurement.
    """

    patches: int = 1024
    gaussian: int = 50_000
    pairs: int = 10_000
    dim: int = 768
    repetitions: int = 3


def rows(artifacts: artifacts_lib.Artifacts, sizes: Sizes = Sizes()) -> Iterator[results.Figure]:
    """Patches through the encoder and the judge, then distances of random features.

    Names say whether weights are the run's or random, and how many features there are.
    """
    for name in ("encoder", "judge"):
        yield _extraction(artifacts, name, sizes)
    yield from _gaussian(sizes)
    yield from _pairs(sizes)


def _extraction(artifacts: artifacts_lib.Artifacts, name: str, sizes: Sizes) -> results.Figure:
    """Patches a second of noise, as the evaluation takes their features."""
    model, weights = _encoder(artifacts, name)
    extract, px = networks.OfEncoder(name, model), model.architecture.input_px
    shape = (sizes.patches, px, px, 3)
    # The time does not depend on what is to be seen.
    patches = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    # Once for the compiler.
    extract(patches)
    seconds = [_measured(lambda: extract(patches)).seconds for _ in range(sizes.repetitions)]
    is_cpu = jax.default_backend() == "cpu"
    # By core or device, so that machines of different sizes compare.
    units = machine.cores() if is_cpu else jax.local_device_count()
    label = f"evaluation/{name}_{weights}_weights/per_{'core' if is_cpu else 'device'}"
    return label, [sizes.patches / s / units for s in seconds], "patches/s"


def _encoder(artifacts: artifacts_lib.Artifacts, name: str) -> tuple[encoder_lib.Encoder, str]:
    """The run's, or one of its sizes, and which of the two."""
    if (artifacts.folders.of_stage(name) / "encoder.json").exists():
        return artifacts.encoder(name), "own"
    architecture = getattr(artifacts.config, name).architecture
    like = published.abstract_encoder(architecture)
    return encoder_lib.Encoder(architecture, random_weights.params(like)), "random"


def _gaussian(sizes: Sizes) -> Iterator[results.Figure]:
    """The Fréchet distance of random features, which are sampled and added up block by block."""
    repeat = lambda call: [_measured(call) for _ in range(sizes.repetitions)]
    costs = repeat(lambda: frechet_interval.frechet_estimate(_blocks(0, sizes), _blocks(1, sizes)))
    label = f"evaluation/frechet_{sizes.gaussian}x{sizes.dim}"
    yield f"{label}/from_features_to_interval", [m.seconds for m in costs], "s"
    yield f"{label}/memory", [m.megabytes for m in costs], "MB"
    sides = [moments.Moments.merged(_blocks(side, sizes)) for side in (0, 1)]
    plain = repeat(lambda: frechet.frechet(*sides))
    yield f"{label}/of_moments", [m.seconds for m in plain], "s"


def _blocks(side: int, sizes: Sizes) -> list[moments.Moments]:
    """Moments of blocks of features; no more than one block's features are in memory."""
    source = np.random.default_rng(side)
    normal = lambda part: source.standard_normal((part.stop - part.start, sizes.dim), np.float32)
    return [moments.Moments.of(normal(p)) for p in intervals.blocks_of(sizes.gaussian)]


def _pairs(sizes: Sizes) -> Iterator[results.Figure]:
    """Figures of all pairs of random features."""
    shape = (2, sizes.pairs, sizes.dim)
    features = np.random.default_rng(0).standard_normal(shape, np.float32)
    figures: dict[str, Callable[[], Any]] = {
        "kid": functools.partial(kid.kid, *features, blocks=intervals.BLOCKS),
        "precision_recall": functools.partial(precision_recall.compare, *features),
    }
    for name, call in figures.items():
        costs = [_measured(call) for _ in range(sizes.repetitions)]
        label = f"evaluation/{name}_{sizes.pairs}x{sizes.dim}"
        yield f"{label}/seconds", [m.seconds for m in costs], "s"
        yield f"{label}/memory", [m.megabytes for m in costs], "MB"


@dataclasses.dataclass(frozen=True)
class _Cost:
    """Seconds, and peak memory beyond what the process held before."""

    seconds: float
    megabytes: float


def _measured(call: Callable[[], Any]) -> _Cost:
    seconds = []

    def timed() -> None:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)

    megabytes = memory.peak_mb_beyond(timed)
    return _Cost(seconds[0], megabytes)
