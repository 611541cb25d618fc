"""Which windows are evaluated together, the chunks of every step, and what each window has of its
own: a host's part of the work, done without waiting for a device."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.sampler import conditions, field, windows


class Position(NamedTuple):
    """How far a run is: the solver step, and its chunk that comes next."""

    step: int
    chunk: int


START = Position(0, 0)


class Chunk(NamedTuple):
    """Windows of a step that are evaluated together.

    Attributes:
        numbers: of the windows; −1 fills up.
        reached: where a run stands once they are done.
    """

    step: int
    numbers: Int[np.ndarray, "K"]
    reached: Position

    @property
    def ends_step(self) -> bool:
        """Whether the step is done with it."""
        return self.reached.step > self.step


class ChunkInputs(NamedTuple):
    """What the K windows of a chunk have of their own.

    Attributes:
        chunk: which they are.
        corners: (row, column) of each in the storage of its device.
        window_weights: of the rows and of the columns of each.
        condition: of those that devices of this process evaluate.
    """

    chunk: Chunk
    corners: Int[np.ndarray, "K 2"]
    window_weights: Float[np.ndarray, "K 2 w"]
    condition: conditions.Conditions


def fitting(most: int, count: int) -> int:
    """How many are computed together, `most` at the most, where `count` of them are wanted.

    Programs are compiled for one number: it is `most`, whatever the count, so that all sizes of
    image share a program; only where the half of it, a quarter, … is enough is it that.
    """
    while most > 1 and -(-most // 2) >= count:
        most = -(-most // 2)
    return most


@dataclasses.dataclass(frozen=True, eq=False)
class Chunks:
    """The chunks of a plan.

    Attributes:
        most: windows on all devices together; a multiple of the devices.
    """

    plan: windows.WindowPlan
    layout: field.Layout
    most: int

    @functools.cached_property
    def size(self) -> int:
        """Windows of a chunk on all devices, those that fill it up counted."""
        config = self.layout.config
        # Of most steps: the last, whose windows overlap, have more and take more chunks.
        fewest = min(step.count for step in self.plan.steps)
        in_shard = max(
            int(np.bincount(step.rows // self.layout.shard_rows).max()) * len(step.cols)
            for step in self.plan.steps
            if step.count == fewest
        )
        together = config.devices // config.shards
        size = fitting(self.most // config.shards, in_shard)
        return -(-size // together) * together * config.shards

    @property
    def count(self) -> int:
        """Of all steps."""
        return self.before(Position(self.plan.num_steps, 0))

    def before(self, position: Position) -> int:
        """Chunks that are done at a place of a run."""
        return sum(self.count_of(step) for step in range(position.step)) + position.chunk

    def count_of(self, step: int) -> int:
        """Of a step."""
        return len(self._numbers(step))

    def after(self, position: Position) -> Iterator[Chunk]:
        """What is left of a run at `position`, in order."""
        for step in range(position.step, self.plan.num_steps):
            numbers = self._numbers(step)
            for i in range(position.chunk if step == position.step else 0, len(numbers)):
                is_last = i + 1 == len(numbers)
                reached = Position(step + 1, 0) if is_last else Position(step, i + 1)
                yield Chunk(step, numbers[i], reached)

    def inputs(self, condition: conditions.ConditionFn, chunk: Chunk) -> ChunkInputs:
        """What goes with a chunk.

        Raises ValueError where there is not one condition a window.
        """
        layout, used = self.layout, chunk.numbers >= 0
        numbers = np.where(used, chunk.numbers, chunk.numbers.max())
        step = self.plan.steps[chunk.step]
        corners = step.corners(numbers)
        own = self._own(self.plan.places(corners))
        of_windows = np.asarray(condition(own), np.float32)
        if of_windows.ndim != 2 or len(of_windows) != len(own):
            raise ValueError(f"conditions must be ({len(own)}, D), got {of_windows.shape}")
        local = corners % np.array([layout.shard_rows, layout.shape[1]])
        local = np.where(used[:, None], local, 0).astype(np.int32)
        weights = step.shares(numbers) * used[:, None, None].astype(np.float32)
        return ChunkInputs(chunk, local, weights, of_windows)

    def _own(self, places: Int[np.ndarray, "K 2"]) -> Int[np.ndarray, "N 2"]:
        """Those of a chunk's windows that devices of this process evaluate."""
        config, count = self.layout.config, len(places)
        if config.mesh is None:
            return places
        parts = config.in_parts.addressable_devices_indices_map((count,)).values()
        return places[np.unique(np.concatenate([np.arange(count)[i] for i in parts]))]

    def _numbers(self, step: int) -> Int[np.ndarray, "M K"]:
        """Numbers of the windows of each chunk; split over rows, every device has its own part of
        a chunk."""
        shards, of_step = self.layout.config.shards, self.plan.steps[step]
        shard = np.repeat(of_step.rows // self.layout.shard_rows, len(of_step.cols))
        own = [np.flatnonzero(shard == i) for i in range(shards)]
        part = self.size // shards
        length = -(-max(len(o) for o in own) // part) * part
        padded = np.stack([np.pad(o, (0, length - len(o)), constant_values=-1) for o in own])
        return np.moveaxis(padded.reshape(shards, -1, part), 1, 0).reshape(-1, shards * part)
