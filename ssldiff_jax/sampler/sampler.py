"""The grid sampler: all windows of a canvas are denoised together, step by step.

Three jit-compiled programs: `start` fills the field with noise, `denoise` asks the network for the
clean latents of a chunk of windows (vmapped) and adds them to a field of x0_hat, `advance` takes
the whole field one solver step down. Chunks follow each other from the host, so that memory is the
canvas and one chunk, conditions are made as they are needed, and a run can stop between any two.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import conditions, windows
from ssldiff_jax.sampler import field as field_lib
from ssldiff_jax.sampler import programs as programs_lib


class Position(NamedTuple):
    """How far a run is: the solver step, and its chunk that comes next."""

    step: int
    chunk: int


START = Position(0, 0)


@dataclasses.dataclass(frozen=True)
class InitLatents:
    """Latents (H, W, C) that a canvas starts from, at the noise of the solver's first step, and
    how much of them stays: keep_mask (H, W) from 0 to 1."""

    latents: Float[np.ndarray, "H W C"]
    keep_mask: Float[np.ndarray, "H W"] | None = None


@dataclasses.dataclass(frozen=True)
class GridSampler:
    """Samples canvases. There is one trace for each size of canvas: seeds, conditions, weights and
    window positions may change without another.

    Attributes:
        denoise: (params, x_t, t, condition) → prediction.
        guided: puts the schedule, prediction and guidance around it.
        table: the solver.
        chunk: the most windows that are evaluated together; a multiple of the devices.
        canvas: how the arrays of the canvas are held.
    """

    denoise: Callable[..., jax.Array]
    guided: Callable[[guidance.DenoiseFn], guidance.GuidedX0]
    table: solvers.SolverTable
    chunk: int
    canvas: field_lib.CanvasConfig

    def __post_init__(self):
        devices = self.canvas.devices
        if self.chunk < 1 or self.chunk % devices:
            raise ValueError(
                f"chunk must be a positive multiple of the devices, got chunk={self.chunk}, "
                f"devices={devices}"
            )

    def __call__(
        self,
        params: Any,
        plan: windows.WindowPlan,
        condition: conditions.ConditionFn,
        key: arrays.Key,
        init: InitLatents | None = None,
    ) -> arrays.Canvas:
        """A canvas, whole and in float32."""
        state = self.run(params, plan, condition, key, init)
        return self.rows(plan, state, 0, plan.canvas[0])

    def run(
        self,
        params: Any,
        plan: windows.WindowPlan,
        condition: conditions.ConditionFn,
        key: arrays.Key,
        init: InitLatents | None = None,
    ) -> programs_lib.State:
        """The field after the last step."""
        state, end = self.start(plan, key, init), Position(plan.num_steps, 0)
        for reached, place in self.iterate(params, plan, condition, key, state):
            if place == end:
                return reached
        raise ValueError("a plan must have at least one step, got none")

    def start(
        self, plan: windows.WindowPlan, key: arrays.Key, init: InitLatents | None = None
    ) -> programs_lib.State:
        """The field at the noise of the first step; of `init` latents, or noise alone."""
        layout = self.layout(plan)
        known = keep = None
        if init is not None:
            put = lambda a: self._put(layout, layout.store(a), split=True)
            known = put(init.latents)
            keep = None if init.keep_mask is None else put(init.keep_mask[..., None])
        return self.programs(plan).start(_data(key), known, keep)

    def iterate(
        self,
        params: Any,
        plan: windows.WindowPlan,
        condition: conditions.ConditionFn,
        key: arrays.Key,
        state: programs_lib.State,
        place: Position = START,
    ) -> Iterator[tuple[programs_lib.State, Position]]:
        """Go on from `place`; yields the state after every chunk, and where it stands. A state
        that was yielded is gone with the next one.

        Raises ValueError where steps of solver and plan, or conditions and windows, differ.
        """
        if len(self.table.t) != plan.num_steps:
            raise ValueError(
                f"a plan must have the solver's {len(self.table.t)} steps, got {plan.num_steps}"
            )
        layout, columns = self.layout(plan), self.table.columns()
        programs, key_data = self.programs(plan), _data(key)
        # Once for all canvases, not with every one of them or of their chunks.
        params = self._placed(params, layout.sharding(split=False))
        for step in range(place.step, plan.num_steps):
            row = {name: column[step] for name, column in columns.items()}
            chunks = self._chunks(layout, plan, step)
            for i in range(place.chunk if step == place.step else 0, len(chunks)):
                inputs = self._inputs(layout, plan, step, chunks[i], condition)
                x0_sum = programs.denoise(params, state.x, state.x0_sum, inputs, row["t"])
                state = state._replace(x0_sum=x0_sum)
                if i + 1 < len(chunks):
                    yield state, Position(step, i + 1)
            state = programs.advance(state, row, key_data, np.int32(step))
            yield state, Position(step + 1, 0)

    def rows(
        self,
        plan: windows.WindowPlan,
        state: programs_lib.State,
        top: int,
        count: int,
        beyond: int = 0,
    ) -> np.ndarray:
        """Rows of the canvas, float32, with `beyond` latent pixels more on either side; those
        beyond its border are the field's, which goes round. All processes must ask together."""
        at = self.layout(plan).stored_rows(np.arange(top, top + count) % plan.field[0])
        cols = np.arange(-beyond, plan.canvas[1] + beyond) % plan.field[1]
        return np.asarray(self.programs(plan).fetch(state.x, at), np.float32)[:, cols]

    def layout(self, plan: windows.WindowPlan) -> field_lib.Layout:
        """How the plan's field is stored."""
        blocks = (size // plan.window for size in plan.field)
        return field_lib.Layout(*blocks, plan.window, self.canvas)

    def num_chunks(self, plan: windows.WindowPlan) -> int:
        """Chunks of all steps."""
        return self.chunks_before(plan, Position(plan.num_steps, 0))

    def chunks_before(self, plan: windows.WindowPlan, place: Position) -> int:
        """Chunks that are done at a place of a run."""
        layout = self.layout(plan)
        counts = (len(self._chunks(layout, plan, step)) for step in range(place.step))
        return sum(counts) + place.chunk

    def unet_forwards(self, plan: windows.WindowPlan) -> int:
        """Windows the network evaluates for one canvas, guidance and padding counted."""
        layout, guided = self.layout(plan), self.guided(self.denoise)
        chunks = [len(self._chunks(layout, plan, step)) for step in range(plan.num_steps)]
        calls = np.dot(chunks, guided.calls_per_example(self.table.t))
        return int(calls) * self.windows_at_once(plan)

    def windows_at_once(self, plan: windows.WindowPlan) -> int:
        """Windows of a chunk on all devices: `chunk` or fewer, so that chunks are as even as can
        be and little is filled up."""
        layout, shards = self.layout(plan), self.canvas.shards
        rows = max(np.bincount(starts // layout.shard_rows).max() for starts in plan.rows)
        most, limit = int(rows) * plan.cols.shape[1], self.chunk // shards
        even = -(-most // -(-most // limit))
        together = self.canvas.devices // shards
        return -(-even // together) * together * shards

    def state_bytes(self, plan: windows.WindowPlan) -> int:
        """Of the arrays that are kept between steps, all devices together."""
        arrays_kept = 2 + self.table.history.shape[1]
        return arrays_kept * self.layout(plan).num_bytes

    def _chunks(self, layout, plan: windows.WindowPlan, step: int) -> list[np.ndarray]:
        """Numbers of the windows of each chunk, −1 where there is none; split over rows, every
        device has its own part of a chunk."""
        shards = self.canvas.shards
        shard = np.repeat(plan.rows[step] // layout.shard_rows, plan.cols.shape[1])
        own = [np.flatnonzero(shard == i) for i in range(shards)]
        part = self.windows_at_once(plan) // shards
        length = -(-max(len(o) for o in own) // part) * part
        padded = np.stack([np.pad(o, (0, length - len(o)), constant_values=-1) for o in own])
        return list(np.moveaxis(padded.reshape(shards, -1, part), 1, 0).reshape(-1, shards * part))

    def _inputs(
        self, layout, plan, step: int, numbers: np.ndarray, condition
    ) -> programs_lib.ChunkInputs:
        """Corners on their device, weights and conditions of a chunk."""
        used = numbers >= 0
        of = np.where(used, numbers, numbers.max())
        corners = plan.corners(step, of)
        of_windows = self._conditions(condition, plan.places(corners))
        local = corners % np.array([layout.shard_rows, layout.shape[1]])
        local = np.where(used[:, None], local, 0).astype(np.int32)
        weights = plan.window_weights(of) * used[:, None, None].astype(np.float32)
        local, weights = (self._put(layout, a, split=True) for a in (local, weights))
        return programs_lib.ChunkInputs(local, weights, of_windows)

    def _conditions(self, condition: conditions.ConditionFn, places: np.ndarray):
        """Of a chunk's windows, on the devices that evaluate them; a process asks for its own."""
        count, mesh = len(places), self.canvas.mesh
        if mesh is not None:
            split = NamedSharding(mesh, PartitionSpec(field_lib.AXIS))
            parts = split.addressable_devices_indices_map((count,)).values()
            places = places[np.unique(np.concatenate([np.arange(count)[i] for i in parts]))]
        own = np.asarray(condition(places), np.float32)
        if own.ndim != 2 or len(own) != len(places):
            raise ValueError(f"conditions must be ({len(places)}, D), got {own.shape}")
        if mesh is None:
            return own
        return jax.make_array_from_process_local_data(split, own, (count, own.shape[1]))

    def _put(self, layout: field_lib.Layout, tree: Any, *, split: bool) -> Any:
        sharding = layout.sharding(split)
        if sharding is None:
            return tree
        place = lambda a: jax.make_array_from_callback(a.shape, sharding, lambda i: a[i])
        return jax.tree.map(lambda a: place(np.asarray(a)), tree)

    @functools.cached_property
    def _placed(self) -> data_parallel.Placed:
        return data_parallel.Placed()

    @functools.cached_property
    def _cache(self) -> dict[field_lib.Layout, programs_lib.Programs]:
        return {}

    def programs(self, plan: windows.WindowPlan) -> programs_lib.Programs:
        """What is compiled for canvases of this size."""
        layout = self.layout(plan)
        if layout not in self._cache:
            self._cache[layout] = programs_lib.Programs(
                self.denoise, self.guided, self.table, layout
            )
        return self._cache[layout]


def _data(key: arrays.Key) -> np.ndarray:
    return np.asarray(jax.random.key_data(key))
