"""The compiled programs of the grid sampler: the network on windows that are denoised together, for
all sizes of canvas; and for each size the first noise, cutting and adding windows, and one solver
step of the whole field."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import platform
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.sampler import field as field_lib
from ssldiff_jax.sampler import hold


class State(NamedTuple):
    """Arrays of the field: x_t, the sum of x0_hat over the windows so far, and what the solver
    remembers. Known latents are kept where `keep_mask` is 1 and mixed in where it is between;
    `target` are the colours of a coarse image that it is held to."""

    x: jax.Array
    x0_sum: jax.Array
    history: tuple[jax.Array, ...]
    known_latents: jax.Array | None = None
    keep_mask: jax.Array | None = None
    target: jax.Array | None = None


jax.export.register_namedtuple_serialization(State, serialized_name="ssldiff_jax.sampler.State")


class Network:
    """The network on the windows of a chunk, vmapped over them: one program for each kind of
    timestep. No size of canvas is in it, so that all of them share what is slow to compile."""

    def __init__(
        self,
        denoise: Callable[..., jax.Array],
        guided: Callable[[guidance.DenoiseFn], guidance.GuidedX0],
        canvas: field_lib.CanvasConfig,
    ):
        self._denoise, self._guided = denoise, guided
        # One device is that of the arguments: it may be of another machine, compiled for.
        split = canvas.in_parts if canvas.mesh else None
        compiled = functools.partial(
            jax.jit, out_shardings=split, compiler_options=platform.compiler_options()
        )
        self.of_kind: dict[guidance.Kind, Callable[..., jax.Array]] = {
            "plain": compiled(self._plain_network),
            "guided": compiled(self._guided_network),
        }

    def _plain_network(self, params, x_t, t, condition) -> jax.Array:
        guided = self._guided(functools.partial(self._denoise, params))
        return guided.plain(x_t, jnp.full(len(x_t), t), condition)

    def _guided_network(self, params, x_t, t, condition) -> jax.Array:
        guided = self._guided(functools.partial(self._denoise, params))
        return guided.guided(x_t, jnp.full(len(x_t), t), condition)


class Programs:
    """The compiled programs for one layout: all but the network, small ones."""

    def __init__(self, table: solvers.SolverTable, layout: field_lib.Layout):
        self._table, self._layout = table, layout
        over, held, config = layout.over_shards, layout.sharding, layout.config
        self.start = jax.jit(self._start_program, out_shardings=held)
        self.cut = jax.jit(over(self._cut, (True, True)), out_shardings=config.in_parts)
        add = over(self._add, (True, True, True, True))
        self.add = jax.jit(add, donate_argnums=0, out_shardings=held)
        advance = over(self._advance, (True, False, False, False))
        self.advance = jax.jit(advance, donate_argnums=0, out_shardings=held)
        self.fetch = jax.jit(lambda x, at: x[at], out_shardings=config.whole)

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

    def _cut(self, x, corners) -> Float[jax.Array, "K w w C"]:
        """Windows at their corners, (row, column) in the storage of their device."""
        side, channels = self._layout.window, self._layout.config.channels
        size = (side, side, channels)
        cut = lambda corner: jax.lax.dynamic_slice(x, (*corner, 0), size)
        return jax.vmap(cut)(corners).astype(jnp.float32)

    def _add(self, x0_sum, x0_hat, corners, window_weights) -> field_lib.Stored:
        """The sum of x0_hat with the windows of a chunk added; window_weights (K, 2, w) are those
        of the rows and of the columns of each."""

        def add(total, window):
            x0_hat, corner, (rows, cols) = window
            at = (*corner, 0)
            old = jax.lax.dynamic_slice(total, at, x0_hat.shape)
            patch = rows[:, None, None] * cols[:, None] * x0_hat
            return jax.lax.dynamic_update_slice(total, (old + patch).astype(total.dtype), at), None

        return jax.lax.scan(add, x0_sum, (x0_hat, corners, window_weights))[0]

    def _advance(self, state: State, row, key_data, step) -> State:
        """One solver step of every pixel; the sum of x0_hat starts again at zero."""
        layout, table = self._layout, self._table
        key, is_noisy = jax.random.wrap_key_data(key_data), bool(np.any(table.noise))

        def band(number, changed, given):
            x, x0_hat, *history = changed
            x0_hat = led(number, x0_hat, given)
            noise = layout.noise(key, step + 1, number) if is_noisy else jnp.zeros(())
            history = jnp.stack(history) if history else jnp.zeros((0, *x.shape))
            x, history = solvers.advance(row, x, x0_hat, history, noise)
            return (x, jnp.zeros_like(x0_hat), *history)

        total = layout.reduce_halo(state.x0_sum)
        kept = (state.known_latents, state.keep_mask) if state.keep_mask is not None else ()
        led = lambda number, x0_hat, kept: _mixed(x0_hat, kept)
        if state.target is not None:
            total, led = self._held(total, kept, state.target, row["held"])
        x, total, *history = layout.map_row_blocks(band, (state.x, total, *state.history), kept)
        # What a halo held was added where it belongs.
        total = total.at[layout.shard_rows :].set(0) if layout.halo else total
        return state._replace(x=layout.exchange_halo(x), x0_sum=total, history=tuple(history))

    def _held(self, total, kept, target, row) -> tuple[field_lib.Rows, Callable[..., jax.Array]]:
        """x0_hat of the field where known latents stay, and what gives a row of blocks of it the
        colours that it is held to."""
        layout = self._layout
        if kept:
            mix = lambda number, changed, kept: (_mixed(*changed, kept),)
            (total,) = layout.map_row_blocks(mix, (total,), kept)
        total = layout.exchange_halo(total)
        held = hold.HeldField(layout, layout.shape[1] // target.shape[1])
        lacks = held.lacks(total, target, row)

        def led(number, x0_hat, kept):
            change = held.change(lacks, row, number)
            return x0_hat + ((1 - kept[1]) * change if kept else change)

        return total, led


def _mixed(x0_hat: field_lib.Rows, kept: Sequence[field_lib.Rows]) -> field_lib.Rows:
    """With known latents where they stay."""
    if not kept:
        return x0_hat
    known, keep = kept
    return x0_hat + keep * (known - x0_hat)
