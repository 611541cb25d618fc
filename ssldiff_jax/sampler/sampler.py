"""The grid sampler: all windows of a canvas are denoised together, step by step.

Jit-compiled programs: `start` fills the field with noise; the network finds the clean latents of a
chunk of windows, which `cut` takes from the field and `add` blends into a field of x0_hat;
`advance` takes the whole field one solver step down. Chunks follow each other from the host, so
that memory is the canvas and one chunk, and a run can stop between any two. The host runs ahead:
conditions of the next chunk are made by a thread while the devices work on this one.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel
from ssldiff_jax.data import ahead
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import chunks as chunks_lib
from ssldiff_jax.sampler import conditions, hold, windows
from ssldiff_jax.sampler import field as field_lib
from ssldiff_jax.sampler import programs as programs_lib

Position, START = chunks_lib.Position, chunks_lib.START

_IN_FLIGHT = 2  # chunks that devices have been given and not finished: one waits for no host


@dataclasses.dataclass(frozen=True)
class InitLatents:
    """Latents (H, W, C) that a canvas starts from, at the noise of the solver's first step, and
    how much of them stays: keep_mask (H, W) from 0 to 1."""

    latents: Float[np.ndarray, "H W C"]
    keep_mask: Float[np.ndarray, "H W"] | None = None


@dataclasses.dataclass(frozen=True)
class GridSampler:
    """Samples canvases. The network is compiled once, and once more where some steps are guided and
    some are not; what a size of canvas adds is small. Seeds, conditions, weights and window
    positions may change without another trace.

    Attributes:
        denoise: (params, x_t, t, condition) → prediction.
        guided: puts the schedule, prediction and guidance around it.
        table: the solver.
        chunk: windows that are evaluated together, fewer for small canvases; a multiple of the
            devices.
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
        held: hold.Hold | None = None,
    ) -> arrays.Canvas:
        """A canvas, whole and in float32."""
        state = self.run(params, plan, condition, key, init, held)
        return self.rows(plan, state, 0, plan.canvas[0])

    def run(
        self,
        params: Any,
        plan: windows.WindowPlan,
        condition: conditions.ConditionFn,
        key: arrays.Key,
        init: InitLatents | None = None,
        held: hold.Hold | None = None,
    ) -> programs_lib.State:
        """The field after the last step."""
        state, end = self.start(plan, key, init, held), Position(plan.num_steps, 0)
        for reached, place in self.iterate(params, plan, condition, key, state, held=held):
            if place == end:
                return reached
        raise ValueError("a plan must have at least one step, got none")

    def start(
        self,
        plan: windows.WindowPlan,
        key: arrays.Key,
        init: InitLatents | None = None,
        held: hold.Hold | None = None,
    ) -> programs_lib.State:
        """The field at the noise of the first step; of `init` latents, or noise alone."""
        layout = self.layout(plan)
        known = keep = None
        if init is not None:
            put = lambda a: data_parallel.put(layout.store(a), layout.sharding)
            known = put(init.latents)
            keep = None if init.keep_mask is None else put(init.keep_mask[..., None])
        state = self.programs(plan).start(self.put_whole(_data(key)), known, keep)
        if held is None:
            return state
        coarse = layout.coarser(held.side)
        return state._replace(
            target=data_parallel.put(
                coarse.store(held.target(plan), str(held.colours.dtype)), coarse.sharding
            )
        )

    def iterate(
        self,
        params: Any,
        plan: windows.WindowPlan,
        condition: conditions.ConditionFn,
        key: arrays.Key,
        state: programs_lib.State,
        place: Position = START,
        held: hold.Hold | None = None,
    ) -> Iterator[tuple[programs_lib.State, Position]]:
        """Go on from `place`; yields the state after every chunk, and where it stands. A state
        that was yielded is gone with the next one. What it is held to is what it was started with.

        Raises ValueError where steps of solver and plan, or conditions and windows, differ.
        """
        if len(self.table.t) != plan.num_steps:
            raise ValueError(
                f"a plan must have the solver's {len(self.table.t)} steps, got {plan.num_steps}"
            )
        programs, layout, key_data = self.programs(plan), self.layout(plan), _data(key)
        # Once for all canvases, not with every one of them or of their chunks.
        params = self._placed(params, self.canvas.whole)
        state = jax.tree.map(lambda a: data_parallel.put(a, layout.sharding), state)
        rows, key_data = self._rows(plan, held), self.put_whole(key_data)
        chunks, unfinished = self._chunks(plan), collections.deque()
        make, left = functools.partial(chunks.inputs, condition), chunks.after(place)
        with contextlib.closing(ahead.ahead(make, left, threads=1, count=1)) as made:
            for inputs in made:
                chunk, t = inputs.chunk, int(self.table.t[inputs.chunk.step])
                corners, weights = (
                    data_parallel.put(a, layout.sharding)
                    for a in (inputs.corners, inputs.window_weights)
                )
                x_t = programs.cut(state.x, corners)
                x0_hat = self.x0_hat(params, x_t, t, self._condition(inputs))
                state = state._replace(x0_sum=programs.add(state.x0_sum, x0_hat, corners, weights))
                if chunk.ends_step:
                    row, step = self.put_whole((rows[chunk.step], np.int32(chunk.step)))
                    state = programs.advance(state, row, key_data, step)
                unfinished.append(x0_hat)
                if len(unfinished) > _IN_FLIGHT:
                    jax.block_until_ready(unfinished.popleft())
                yield state, chunk.reached

    def x0_hat(
        self, params: Any, x_t: arrays.Latents, t: int, condition: arrays.Embedding
    ) -> jax.Array:
        """Clean latents of windows, at a timestep of all. What is on the host is brought to the
        devices, which share the windows; params must be there."""
        program = self.network.of_kind[self.kind(t)]
        x_t, condition = (data_parallel.put(a, self.canvas.in_parts) for a in (x_t, condition))
        return program(params, x_t, self.put_whole(np.int32(t)), condition)

    def rows(
        self,
        plan: windows.WindowPlan,
        state: programs_lib.State,
        top: int,
        count: int,
        beyond: int = 0,
    ) -> np.ndarray:
        """Rows of the canvas, float32, with `beyond` latent pixels more on either side. What lies
        beyond its border is the field's, which goes round, or without a margin mirrored. All
        processes must ask together."""
        rows, cols = np.arange(top, top + count), np.arange(-beyond, plan.canvas[1] + beyond)
        if plan.margin:
            rows, cols = rows % plan.field[0], cols % plan.field[1]
        else:
            rows, cols = map(windows.mirrored, (rows, cols), plan.canvas)
        at = self.layout(plan).stored_rows(rows)
        taken = self.programs(plan).fetch(state.x, self.put_whole(at))
        return np.asarray(taken, np.float32)[:, cols]

    def layout(self, plan: windows.WindowPlan) -> field_lib.Layout:
        """How the plan's field is stored."""
        blocks = (size // plan.window for size in plan.field)
        return field_lib.Layout(*blocks, plan.window, self.canvas)

    def kind(self, t: int) -> guidance.Kind:
        """What a timestep asks of the network."""
        return self._guided_x0.kind(t)

    def num_chunks(self, plan: windows.WindowPlan) -> int:
        """Chunks of all steps."""
        return self._chunks(plan).count

    def chunks_before(self, plan: windows.WindowPlan, place: Position) -> int:
        """Chunks that are done at a place of a run."""
        return self._chunks(plan).before(place)

    def chunks_of_kinds(self, plan: windows.WindowPlan) -> dict[guidance.Kind, int]:
        """Chunks of all steps, by what their timesteps ask of the network."""
        chunks, counts = self._chunks(plan), collections.Counter()
        for step, t in enumerate(self.table.t):
            counts[self.kind(int(t))] += chunks.count_of(step)
        return dict(counts)

    def unet_forwards(self, plan: windows.WindowPlan) -> int:
        """Windows the network evaluates for one canvas, guidance and padding counted."""
        counts = self.chunks_of_kinds(plan)
        return (counts.get("plain", 0) + 2 * counts.get("guided", 0)) * self.windows_at_once(plan)

    def windows_at_once(self, plan: windows.WindowPlan) -> int:
        """Windows of a chunk on all devices: `chunk`, or, for a canvas of fewer, a half of it, a
        quarter …"""
        return self._chunks(plan).size

    def state_bytes(self, plan: windows.WindowPlan) -> int:
        """Of the arrays that are kept between steps, all devices together."""
        arrays_kept = 2 + self.table.history.shape[1]
        return arrays_kept * self.layout(plan).num_bytes

    def held_bytes(self, plan: windows.WindowPlan, held: hold.Hold | None) -> int:
        """Of the colours that a canvas is held to, and of what it lacks of them while a step ends,
        all devices together."""
        if held is None:
            return 0
        coarse = self.layout(plan).coarser(held.side)
        rows, cols, _ = coarse.shape
        each = 1 + jnp.dtype(self.canvas.dtype).itemsize
        return rows * cols * held.colours.shape[-1] * each

    def _chunks(self, plan: windows.WindowPlan) -> chunks_lib.Chunks:
        return chunks_lib.Chunks(plan, self.layout(plan), self.chunk)

    def _condition(self, inputs: chunks_lib.ChunkInputs) -> jax.Array:
        """Of a chunk's windows, on the devices that evaluate them."""
        own, sharding = inputs.condition, self.canvas.in_parts
        if self.canvas.mesh is None:
            return data_parallel.put(own, sharding)
        shape = (len(inputs.corners), own.shape[1])
        return jax.make_array_from_process_local_data(sharding, own, shape)

    def _rows(self, plan: windows.WindowPlan, held: hold.Hold | None) -> list[dict[str, Any]]:
        """What `advance` is given at every step."""
        rows = self.table.rows()
        if held is None:
            return rows
        own = self.put_whole(held.row(plan))
        return [row | {"held": own} for row in rows]

    def put_whole(self, tree: Any) -> Any:
        """Host values on every device."""
        return jax.tree.map(lambda a: data_parallel.put(a, self.canvas.whole), tree)

    @functools.cached_property
    def network(self) -> programs_lib.Network:
        """What is compiled for all sizes of canvas."""
        return programs_lib.Network(self.denoise, self.guided, self.canvas)

    @functools.cached_property
    def _guided_x0(self) -> guidance.GuidedX0:
        return self.guided(self.denoise)

    @functools.cached_property
    def _placed(self) -> data_parallel.Placed:
        return data_parallel.Placed()

    @functools.cached_property
    def _cache(self) -> dict[field_lib.Layout, programs_lib.Programs]:
        return {}

    def programs(self, plan: windows.WindowPlan) -> programs_lib.Programs:
        """What is compiled for canvases of this size, the network apart."""
        layout = self.layout(plan)
        if layout not in self._cache:
            self._cache[layout] = programs_lib.Programs(self.table, layout)
        return self._cache[layout]


def _data(key: arrays.Key) -> np.ndarray:
    return np.asarray(jax.random.key_data(key))
