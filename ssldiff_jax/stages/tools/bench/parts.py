"""What the tool `bench` measures, as parts that have a process each, and their order."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

from ssldiff_jax.runs.config import run as run_config


@dataclasses.dataclass(frozen=True)
class Part:
    """What one process measures: a part of the config's, or one step or one image of it.

    Attributes:
        kind: of `bench.parts`.
        argument: (stage, batch) of a training step, (side,) of an image, () of the others.
    """

    kind: str
    argument: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """How its row is called: training/denoiser/64, images/1024, decode."""
        return "/".join(map(str, (self.kind, *self.argument)))


@dataclasses.dataclass(frozen=True)
class Order:
    """What a process is sent: what to measure, of which run, and where it may write."""

    part: Part
    config: run_config.RunConfig
    workdir: pathlib.Path
    folder: pathlib.Path


def of_config(config: run_config.RunConfig) -> list[Part]:
    """All of them: the first step and the first image before the second ones, so that a call that
    is cut off has something of everything."""
    rounds = itertools.zip_longest(*(list(_of_kind(config, k)) for k in config.bench.parts))
    return [part for parts in rounds for part in parts if part is not None]


def _of_kind(config: run_config.RunConfig, kind: str) -> Iterator[Part]:
    bench = config.bench
    if kind == "training":
        for batch_size in bench.batch_size:
            for name in bench.train:
                yield Part(kind, (name, batch_size or getattr(config, name).train.batch_size))
    elif kind == "images":
        yield from (Part(kind, (side,)) for side in bench.sizes)
    else:
        yield Part(kind)
