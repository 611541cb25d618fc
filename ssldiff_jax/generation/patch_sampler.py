"""Single patches: embeddings to pixels, in batches that the devices share."""

import dataclasses
import functools
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt

from ssldiff_jax.core import arrays, data_parallel, layers, rng
from ssldiff_jax.diffusion import solvers
from ssldiff_jax.generation import window_networks


@dataclasses.dataclass(frozen=True, eq=False)
class PatchSampler:
    """Generates a patch for each embedding, each alone. A batch is a chunk of windows: the network
    is the program that canvases are sampled with."""

    networks: window_networks.WindowNetworks

    @no_type_check
    def __call__(
        self,
        weights: window_networks.Weights,
        embedding: arrays.Embedding,
        *,
        seed: int = 0,
        level: int = 0,
    ) -> UInt[np.ndarray, "N H W bands"]:
        """One patch of a level, from 0, for each embedding. Patch i is the same however many are
        sampled.

        Raises ValueError for embeddings of another dimension or with values that are not finite.
        """
        embedding = self.networks.require_embeddings(embedding, "embedding", level)
        condition = self.networks.condition(embedding, level).astype(np.float32)
        key = rng.stream(seed, "sample/patches")
        # Noise is keyed by the index of a patch, so that batches may be of any size.
        run = lambda batch, index: self._sample(weights, batch, key, int(index[0]))
        numbered, size = (condition, np.arange(len(condition))), self.networks.sampler.chunk
        return np.concatenate(list(data_parallel.map_batches(run, numbered, size)))

    def _sample(
        self, weights: window_networks.Weights, condition: arrays.Embedding, key, first: int
    ) -> UInt[jax.Array, "B H W bands"]:
        """A batch whose first patch is number `first`."""
        sampler, (params, decoder_params) = self.networks.sampler, weights.on_devices
        programs = self._programs
        noise = sampler.put_whole((np.asarray(jax.random.key_data(key)), np.int32(first)))
        x_t, history = programs.start(*noise)
        for step, row in enumerate(self.networks.table.rows()):
            x0_hat = sampler.x0_hat(params, x_t, int(row["t"]), condition)
            row, step = sampler.put_whole((row, np.int32(step)))
            x_t, history = programs.advance(x_t, x0_hat, history, row, *noise, step)
        return programs.decode(decoder_params, x_t)

    @functools.cached_property
    def _programs(self) -> "_Programs":
        return _Programs(self.networks)


class _Programs:
    """What is compiled for patches beside the network."""

    def __init__(self, networks: window_networks.WindowNetworks):
        side, canvas = networks.config.window, networks.sampler.canvas
        self._shape = (networks.sampler.chunk, side, side, networks.latent_channels)
        self._table, self._decode_patches = networks.table, networks.decode_patches
        self._kind = networks.kind
        split = canvas.in_parts
        # Pixels that this process sees all of need no exchange.
        seen = split if split.is_fully_addressable else canvas.whole
        self.start = jax.jit(self._start, out_shardings=split)
        self.advance = jax.jit(self._advance, donate_argnums=(0, 2), out_shardings=split)
        self.decode = jax.jit(self._decode, out_shardings=seen)

    def _start(self, key_data, first) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Noise, and what the solver remembers: nothing, each memory by itself."""
        history = tuple(self._table.blank_history(self._shape))
        return self._noise(key_data, first, 0), history

    def _advance(self, x_t, x0_hat, history, row, key_data, first, step):
        noise = self._noise(key_data, first, step + 1)
        history = jnp.stack(history) if history else jnp.zeros((0, *self._shape))
        x_t, history = solvers.advance(row, x_t, x0_hat, history, noise)
        return x_t, tuple(history)

    def _noise(self, key_data, first, step) -> jax.Array:
        key = jax.random.wrap_key_data(key_data)
        return solvers.patch_noise(key, self._shape, first, step)

    def _decode(self, params: Any, latents) -> UInt[jax.Array, "B H W bands"]:
        pixels = layers.to_pixels(self._decode_patches(params, latents), self._kind.dtype)
        return jnp.maximum(pixels, self._kind.least)
