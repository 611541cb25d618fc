"""Batches that the devices of a mesh cannot share evenly."""

import math
from collections.abc import Iterator, Mapping

from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import chips, loop
from ssldiff_jax.train import mesh as mesh_lib


def uneven(trainings: Mapping[str, loop.TrainConfig], devices: int) -> Iterator[str]:
    """A line for each batch that devices, along data and fsdp, cannot share evenly."""
    for name, train in trainings.items():
        parts, key = train.compute.accumulate, f"config.{name}.train.batch_size"
        least = devices * parts
        if train.batch_size % least:
            # The nearest, so that the learning rate fits as well as it can.
            near = max(round(train.batch_size / least), 1) * least
            yield (
                f"{key} must be a multiple of {least} ({devices} devices along data and fsdp × "
                f"compute.accumulate={parts}), got {train.batch_size}; the nearest is "
                f"--{key}={near}"
            )


def uneven_compiled(config: run_config.RunConfig) -> Iterator[str]:
    """A line for each batch of the tool compile that the devices of a topology cannot share."""
    section = config.compile
    for topology in section.topology:
        chips_of_slice = math.prod(chips.Slice.named(topology).shape)
        devices = math.prod(mesh_lib.axis_sizes(config.mesh, chips_of_slice)[:2])
        for name in (n for n in section.programs if n != "sampler"):
            train = getattr(config, name).train
            least = devices * train.compute.accumulate
            for size in (chosen or train.batch_size for chosen in section.batch_size):
                if size % least:
                    low, high = size // least * least, (size // least + 1) * least
                    yield (
                        f"the batch of {name} must be a multiple of {least} for {topology} "
                        f"({devices} devices along data and fsdp × compute.accumulate="
                        f"{train.compute.accumulate}), got {size}; the nearest "
                        f"{f'are {low} and' if low else 'is'} {high}: "
                        f"--config.compile.batch_size=({low or high},)"
                    )
