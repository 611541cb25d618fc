"""The compiled programs of the grid sampler: the field's first noise, windows denoised together,
and one solver step of the whole field."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import field as field_lib


class State(NamedTuple):
    """Arrays of the field: x_t, the sum of x0_hat over the windows so far, and what the solver
    remembers. Known latents are kept where `keep_mask` is 1 and mixed in where it is between."""

    x: jax.Array
    x0_sum: jax.Array
    history: tuple[jax.Array, ...]
    known_latents: jax.Array | None = None
    keep_mask: jax.Array | None = None


class ChunkInputs(NamedTuple):
    """What the K windows of a chunk have of their own.

    Attributes:
        corners: (row, column) of each in the storage of its device, (K, 2).
        window_weights: of the rows and of the columns of each, (K, 2, window).
        condition: of each, (K, E).
    """

    corners: Int[arrays.AnyArray, "K 2"]
    window_weights: Float[arrays.AnyArray, "K 2 w"]
    condition: Float[arrays.AnyArray, "K E"]


for _type in (State, ChunkInputs):
    jax.export.register_namedtuple_serialization(
        _type, serialized_name=f"ssldiff_jax.sampler.{_type.__name__}"
    )


class Programs:
    """The compiled programs for one layout."""

    def __init__(
        self,
        denoise: Callable[..., jax.Array],
        guided: Callable[[guidance.DenoiseFn], guidance.GuidedX0],
        table: solvers.SolverTable,
        layout: field_lib.Layout,
    ):
        self._network, self._guided, self._table, self._layout = denoise, guided, table, layout
        over = layout.over_shards
        held, whole = layout.sharding(split=True), layout.sharding(split=False)
        self.start = jax.jit(self._start_program, out_shardings=held)
        denoise = over(self._denoise, (False, True, True, True, False))
        self.denoise = jax.jit(denoise, donate_argnums=2, out_shardings=held)
        advance = over(self._advance, (True, False, False, False))
        self.advance = jax.jit(advance, donate_argnums=0, out_shardings=held)
        self.fetch = jax.jit(lambda x, at: x[at], out_shardings=whole)

    def _start_program(self, key_data, known_latents, keep_mask) -> State:
        split = (False, known_latents is not None, keep_mask is not None)
        return self._layout.over_shards(self._start, split)(key_data, known_latents, keep_mask)

    def _start(self, key_data, known_latents, keep_mask) -> State:
        layout, table = self._layout, self._table
        key = jax.random.wrap_key_data(key_data)
        local = (layout.shard_rows + layout.halo, *layout.shape[1:])
        blank = lambda: jnp.zeros(local, layout.config.dtype)

        def fill(row, _, known):
            noise = layout.noise(key, 0, row)
            if not known:
                return (noise,)
            return (table.alpha_start * known[0] + table.sigma_start * noise,)

        known = () if known_latents is None else (known_latents,)
        (x,) = layout.map_row_blocks(fill, (blank(),), known)
        history = tuple(blank() for _ in range(table.history.shape[1]))
        return State(layout.exchange_halo(x), blank(), history, known_latents, keep_mask)

    def _denoise(self, params, x, x0_sum, inputs: ChunkInputs, t) -> jax.Array:
        """The sum of x0_hat with the windows of a chunk added."""
        side, channels = self._layout.window, self._layout.config.channels
        guided = self._guided(functools.partial(self._network, params))

        def cut(corner):
            return jax.lax.dynamic_slice(x, (*corner, 0), (side, side, channels))

        def add(total, window):
            x0_hat, corner, (rows, cols) = window
            at = (*corner, 0)
            old = jax.lax.dynamic_slice(total, at, x0_hat.shape)
            patch = rows[:, None, None] * cols[:, None] * x0_hat
            return jax.lax.dynamic_update_slice(total, (old + patch).astype(total.dtype), at), None

        corners = inputs.corners
        x_t = self._spread(jax.vmap(cut)(corners).astype(jnp.float32))
        x0_hat = guided(x_t, jnp.full(len(corners), t), self._spread(inputs.condition))
        return jax.lax.scan(add, x0_sum, (x0_hat, corners, inputs.window_weights))[0]

    def _advance(self, state: State, row, key_data, step) -> State:
        """One solver step of every pixel; the sum of x0_hat starts again at zero."""
        layout, table = self._layout, self._table
        key, is_noisy = jax.random.wrap_key_data(key_data), bool(np.any(table.noise))

        def band(number, changed, given):
            x, x0_hat, *history = changed
            if given:
                known, keep = given
                x0_hat = x0_hat + keep * (known - x0_hat)
            noise = layout.noise(key, step + 1, number) if is_noisy else jnp.zeros(())
            history = jnp.stack(history) if history else jnp.zeros((0, *x.shape))
            x, history = solvers.advance(row, x, x0_hat, history, noise)
            return (x, jnp.zeros_like(x0_hat), *history)

        total = layout.reduce_halo(state.x0_sum)
        kept = (state.known_latents, state.keep_mask) if state.keep_mask is not None else ()
        x, total, *history = layout.map_row_blocks(band, (state.x, total, *state.history), kept)
        # What a halo held was added where it belongs.
        total = total.at[layout.shard_rows :].set(0) if layout.halo else total
        return state._replace(x=layout.exchange_halo(x), x0_sum=total, history=tuple(history))

    def _spread(self, x: jax.Array) -> jax.Array:
        """Windows of a chunk over the devices."""
        config = self._layout.config
        if config.mesh is None or config.shards > 1:
            return x
        spec = PartitionSpec(field_lib.AXIS)
        return jax.lax.with_sharding_constraint(x, NamedSharding(config.mesh, spec))
