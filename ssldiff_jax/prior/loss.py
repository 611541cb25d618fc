"""The prior's objective, as the training loop drives it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ssldiff_jax.core import arrays, layers, tasks
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.diffusion import process as process_lib
from ssldiff_jax.prior import conditions, network
from ssldiff_jax.prior import reader as reader_lib

_LEAST = 1e-6  # part of an area whose logarithm is taken


@dataclasses.dataclass(frozen=True)
class PriorTask(tasks.Task):
    """Learn p(grid | condition) from batches of white `grid` (B, k, k, D) and `condition`; one grid
    is of `grid_shape` (k, k, D)."""

    model: network.GridDenoiser
    process: process_lib.Process
    drop: conditions.DropRates
    min_snr_gamma: float
    grid_shape: tuple[int, int, int]

    def batch_spec(self) -> tasks.BatchSpec:
        """A grid, its condition and its place in the stream."""
        dim = self.model.spec.dim
        return {
            "grid": jax.ShapeDtypeStruct((1, *self.grid_shape), jnp.float16),
            "condition": jax.ShapeDtypeStruct((1, dim), jnp.float16),
            "index": jax.ShapeDtypeStruct((1,), jnp.int32),
        }

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters, and no further state."""
        grid = batch["grid"].astype(jnp.float32)
        t = jnp.zeros(len(grid), jnp.int32)
        return self.model.init(key, grid, t, batch["condition"])["params"], {}

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """Weighted mean squared error of the prediction at a uniform timestep."""
        index = batch["index"]
        key_t, key_eps, key_drop, key_read = jax.random.split(key, 4)
        condition = self.drop(self.model.spec, batch["condition"], index, key_drop)

        def denoise(x_t: arrays.Latents, t: arrays.Timestep) -> arrays.Latents:
            x_t, said = layers.like(params, x_t), layers.like(params, condition)
            return self.model.apply({"params": params}, x_t, t, said)

        denoising, metrics = diffusion_loss.denoising_loss(
            denoise, batch["grid"].astype(jnp.float32), index, (key_t, key_eps),
            process=self.process, min_snr_gamma=self.min_snr_gamma,
        )  # fmt: skip
        reading = self._reading_loss(params, batch["condition"], index, key_read)
        return tasks.LossOutput(denoising + sum(reading.values()), metrics | reading, extra)

    def _reading_loss(
        self,
        params: Any,
        condition: conditions.Condition,
        index: Int[arrays.AnyArray, "B"],
        key: arrays.Key,
    ) -> dict[str, jax.Array]:
        """Cross entropy of the parts of classes in quadrants, as they are and as they are read in
        texts, whether the denoiser is told these or not; nothing where texts are not worded from
        them."""
        spec = self.model.spec
        if not spec.reads_labels:
            return {}
        key_phrases, key_noise = jax.random.split(key)
        given = spec.unpack(condition)
        said = given | self.drop.some_phrases(spec, given, index, key_phrases)
        said |= {"text": self.drop.noisy_text(spec, said, index, key_noise)}
        reader = reader_lib.TextReader(spec, self.model.config.width)
        said = {name: layers.like(params, value) for name, value in said.items()}
        parts_hat = reader.apply({"params": params["condition"]["reader"]}, said)
        in_quadrants = np.array(spec.areas)[:, 1:].T  # (4, K)
        parts, known = (given[name][:, in_quadrants] for name in ("labels", "labels_known"))
        heard = (said["text_known"] > 0).any(axis=1)[:, None, None] * known
        log_hat = jnp.log(parts_hat.astype(jnp.float32) + _LEAST)
        # Over all, heard or not: the mean of a batch is that of its parts' means.
        return {"reading": -jnp.mean((heard * parts * log_hat).sum(axis=-1))}
