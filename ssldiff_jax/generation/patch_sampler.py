"""Single patches: embeddings to pixels, in batches that the devices share."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import UInt8

from ssldiff_jax.core import arrays, data_parallel, layers, rng
from ssldiff_jax.diffusion import solvers
from ssldiff_jax.generation import window_networks


@dataclasses.dataclass(frozen=True, eq=False)
class PatchSampler:
    """Generates a patch for each embedding, each alone."""

    networks: window_networks.WindowNetworks

    def __call__(
        self, weights: window_networks.Weights, embedding: arrays.Embedding, *, seed: int = 0
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """One patch for each embedding. Patch i is the same however many are sampled.

        Raises ValueError for embeddings of another dimension or with values that are not finite.
        """
        embedding = self.networks.require_embeddings(embedding, "embedding", "N")
        condition, devices = self.networks.single_cell(embedding), self.networks.mesh.size
        # Rounded up to what devices share evenly.
        size = -(-self.networks.window_batch // devices) * devices
        key = rng.stream(seed, "sample/patches")
        # Noise is keyed by the index of a patch, so that batches may be of any size.
        run = lambda batch, index: self._program(*weights.on_devices, batch, key, int(index[0]))
        numbered = condition, np.arange(len(condition))
        return np.concatenate(list(data_parallel.map_batches(run, numbered, size)))

    @functools.cached_property
    def _program(self) -> Callable[..., UInt8[jax.Array, "B H W 3"]]:
        networks, side = self.networks, self.networks.config.window

        def sample(params, decoder_params, condition, key, first):
            shape = (len(condition), side, side, networks.latent_channels)
            guided = networks.guided(functools.partial(networks.denoise, params))
            latents = solvers.sample(guided, networks.table, shape, condition, key, first)
            return layers.to_uint8(networks.autoencoder.decode(decoder_params, latents))

        if networks.shared_mesh is None:
            return jax.jit(sample)
        over = lambda spec: NamedSharding(networks.mesh, spec)
        split, whole = over(PartitionSpec("data")), over(PartitionSpec())
        shardings = (whole, whole, split, whole, whole)
        return jax.jit(sample, in_shardings=shardings, out_shardings=split)
