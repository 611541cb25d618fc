"""The grid sampler: one jit-compiled program denoises all windows of a canvas together.

Each step asks the denoiser for the clean latents of every window, blends them into one field,
and advances the whole field by one solver step. Windows are vmapped inside a chunk and chunks
are looped, so memory is the field and one chunk.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import windows

Field = Float[jax.Array, "H W C"]


@dataclasses.dataclass(frozen=True)
class GridSampler:
    """Draws canvases. There is one trace for each size: seeds, embeddings, weights and window
    positions may change without another.

    Attributes:
        denoise: (params, x_t, t, embedding) → prediction.
        guided: puts the schedule, prediction and guidance around it.
        table: the solver.
        channels: of the latents.
        chunk: windows evaluated together; a multiple of the devices on the mesh's data axis.
        mesh: splits the windows of a chunk over its data axis, where given.
    """

    denoise: Callable[..., jax.Array]
    guided: Callable[[guidance.DenoiseFn], guidance.GuidedX0]
    table: solvers.SolverTable
    channels: int
    chunk: int
    mesh: Mesh | None = None

    def __post_init__(self):
        devices = self.mesh.shape["data"] if self.mesh else 1
        if self.chunk < 1 or self.chunk % devices:
            raise ValueError(
                f"chunk must be a positive multiple of the devices, got chunk={self.chunk}, "
                f"devices={devices}"
            )

    def unet_forwards(self, plan: windows.WindowPlan) -> int:
        """Windows the network evaluates for one canvas, guidance and padding counted."""
        steps, count = plan.positions.shape[:2]
        calls = self.guided(self.denoise).calls_per_example
        return steps * -(-count // self.chunk) * self.chunk * calls

    def __call__(
        self,
        params: Any,
        plan: windows.WindowPlan,
        embeddings: Float[arrays.AnyArray, "S N D"],
        key: arrays.Key,
    ) -> arrays.Canvas:
        """A canvas for the embeddings of every window at every step.

        Raises ValueError where steps or windows of solver, plan and embeddings differ.
        """
        steps, expected = len(self.table.t), plan.positions.shape[:2]
        if steps != expected[0] or embeddings.shape[:2] != expected:
            raise ValueError(
                f"embeddings must be (steps, windows, D) of the plan, got {embeddings.shape} for "
                f"{steps} solver steps and a plan of {expected}"
            )
        rows = self.table.columns()
        field = self._compiled(
            params, embeddings, key, plan.positions, plan.weights, rows, plan.field
        )
        top = plan.margin
        return field[top : top + plan.canvas[0], top : top + plan.canvas[1]]

    @functools.cached_property
    def _compiled(self) -> Callable[..., jax.Array]:
        return jax.jit(self._sample, static_argnums=6)

    def _sample(self, params, embeddings, key, positions, weights, rows, field) -> Field:
        x0_hat = self.guided(functools.partial(self.denoise, params))
        shape = (*field, self.channels)
        key_start, key_steps = jax.random.split(key)

        def step(carry, inputs):
            x_t, x0_previous, history, i = carry
            row, position, embedding = inputs
            x0, covered = self.blend(x0_hat, x_t, row["t"], position, embedding, weights)
            x0 = jnp.where(covered, x0, x0_previous)
            noise = jax.random.normal(jax.random.fold_in(key_steps, i), shape)
            x_next, history = solvers.advance(row, x_t, x0, history, noise)
            # What no window saw is brought to the level of the rest, so that it can be seen next.
            renoised = row["alpha_next"] * x0 + row["sigma_next"] * noise
            return (jnp.where(covered, x_next, renoised), x0, history, i + 1), None

        blank = self.table.blank_history(shape)
        start = (jax.random.normal(key_start, shape), jnp.zeros(shape), blank, 0)
        (canvas, *_), _ = jax.lax.scan(step, start, (rows, positions, embeddings))
        return canvas

    def blend(
        self,
        x0_hat: guidance.GuidedX0,
        x_t: Field,
        t: jax.Array,
        position: Int[arrays.AnyArray, "N 2"],
        embedding: Float[arrays.AnyArray, "N D"],
        weights: Float[arrays.AnyArray, "w w"],
    ) -> tuple[Field, Bool[jax.Array, "H W 1"]]:
        """The weighted mean of x0_hat over the windows of a step, and where there is one.

        Windows `(N, 2)` of a field `(H, W, C)`, all at timestep `t`.
        """
        side, channels = weights.shape[0], self.channels
        count, padding = len(position), -len(position) % self.chunk
        fill = lambda a: jnp.pad(a, ((0, padding), (0, 0)), mode="edge")
        chunks = lambda a: a.reshape(-1, self.chunk, *a.shape[1:])
        used = chunks(jnp.arange(count + padding) < count)

        def cut(corner):
            return jax.lax.dynamic_slice(x_t, (*corner, 0), (side, side, channels))

        def add(total, window):
            x0, corner, use = window
            patch = jnp.where(use, weights, 0.0)[..., None] * jnp.pad(
                x0, ((0, 0), (0, 0), (0, 1)), constant_values=1.0
            )
            at = (*corner, 0)
            old = jax.lax.dynamic_slice(total, at, patch.shape)
            return jax.lax.dynamic_update_slice(total, old + patch, at), None

        def add_chunk(total, chunk):
            corners, embeddings, use = chunk
            noisy = self._spread(jax.vmap(cut)(corners))
            ts = jnp.full(self.chunk, t)
            x0 = x0_hat(noisy, ts, self._spread(embeddings))
            return jax.lax.scan(add, total, (x0, corners, use))[0], None

        total = jnp.zeros((*x_t.shape[:2], channels + 1))
        inputs = (chunks(fill(position)), chunks(fill(embedding)), used)
        total, _ = jax.lax.scan(add_chunk, total, inputs)
        weight = total[..., -1:]
        return total[..., :-1] / jnp.where(weight > 0, weight, 1.0), weight > 0

    def _spread(self, x: jax.Array) -> jax.Array:
        if self.mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec("data")))
