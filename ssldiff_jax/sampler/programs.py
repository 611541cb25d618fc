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

from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import field as field_lib


class State(NamedTuple):
    """Arrays of the field: x_t, the sum of x0_hat over the windows so far, and what the solver
    remembers. `known` latents are kept where `keep` is 1 and mixed in where it is between."""

    x: jax.Array
    x0: jax.Array
    history: tuple[jax.Array, ...]
    known: jax.Array | None = None
    keep: jax.Array | None = None


jax.export.register_namedtuple_serialization(State, serialized_name="ssldiff_jax.sampler.State")


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
        denoise = over(self._denoise, (False, True, True, True, True, True, False))
        self.denoise = jax.jit(denoise, donate_argnums=2, out_shardings=held)
        advance = over(self._advance, (True, False, False, False))
        self.advance = jax.jit(advance, donate_argnums=0, out_shardings=held)
        self.fetch = jax.jit(lambda x, at: x[at], out_shardings=whole)

    def _start_program(self, key_data, known, keep) -> State:
        given = known is not None
        program = self._layout.over_shards(self._start, (False, given, keep is not None))
        return program(key_data, known, keep)

    def _start(self, key_data, known, keep) -> State:
        layout, table = self._layout, self._table
        key = jax.random.wrap_key_data(key_data)
        local = (layout.shard_rows + layout.halo, *layout.shape[1:])
        blank = lambda: jnp.zeros(local, layout.config.dtype)

        def fill(row, _, given):
            noise = layout.noise(key, 0, row)
            if not given:
                return (noise,)
            return (table.alpha_start * given[0] + table.sigma_start * noise,)

        (x,) = layout.map_row_blocks(fill, (blank(),), () if known is None else (known,))
        history = tuple(blank() for _ in range(table.history.shape[1]))
        return State(layout.exchange_halo(x), blank(), history, known, keep)

    def _denoise(self, params, x, total, corners, shares, condition, t) -> jax.Array:
        """The sum of x0_hat with the windows of a chunk added."""
        side, channels = self._layout.window, self._layout.config.channels
        x0_hat = self._guided(functools.partial(self._network, params))

        def cut(corner):
            return jax.lax.dynamic_slice(x, (*corner, 0), (side, side, channels))

        def add(total, window):
            x0, corner, (rows, cols) = window
            at = (*corner, 0)
            old = jax.lax.dynamic_slice(total, at, x0.shape)
            patch = rows[:, None, None] * cols[:, None] * x0
            return jax.lax.dynamic_update_slice(total, (old + patch).astype(total.dtype), at), None

        noisy = self._spread(jax.vmap(cut)(corners).astype(jnp.float32))
        x0 = x0_hat(noisy, jnp.full(len(corners), t), self._spread(condition))
        return jax.lax.scan(add, total, (x0, corners, shares))[0]

    def _advance(self, state: State, row, key_data, step) -> State:
        """One solver step of every pixel; the sum of x0_hat starts again at zero."""
        layout, table = self._layout, self._table
        key, is_noisy = jax.random.wrap_key_data(key_data), bool(np.any(table.noise))

        def band(number, changed, given):
            x, x0, *history = changed
            if given:
                known, keep = given
                x0 = x0 + keep * (known - x0)
            noise = layout.noise(key, step + 1, number) if is_noisy else jnp.zeros(())
            history = jnp.stack(history) if history else jnp.zeros((0, *x.shape))
            x, history = solvers.advance(row, x, x0, history, noise)
            return (x, jnp.zeros_like(x0), *history)

        total = layout.reduce_halo(state.x0)
        given = (state.known, state.keep) if state.keep is not None else ()
        x, total, *history = layout.map_row_blocks(band, (state.x, total, *state.history), given)
        # What a halo held was added where it belongs.
        total = total.at[layout.shard_rows :].set(0) if layout.halo else total
        return State(layout.exchange_halo(x), total, tuple(history), state.known, state.keep)

    def _spread(self, x: jax.Array) -> jax.Array:
        """Windows of a chunk over the devices."""
        config = self._layout.config
        if config.mesh is None or config.shards > 1:
            return x
        spec = PartitionSpec(field_lib.AXIS)
        return jax.lax.with_sharding_constraint(x, NamedSharding(config.mesh, spec))
