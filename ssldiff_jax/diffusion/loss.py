"""The denoising objective, and the task that the training loop drives."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import arrays, layers, rng, tasks
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.diffusion import process as process_lib


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is predicted and how it is weighted.

    `min_snr_gamma` caps the weight of low-noise timesteps (Hang et al. 2023); 0 weighs all alike.
    """

    prediction: process_lib.Prediction
    min_snr_gamma: float


@dataclasses.dataclass(frozen=True)
class LossConfig(ObjectiveConfig):
    """The objective of the denoiser, and how often the null embedding takes the embedding's
    place."""

    cond_drop_rate: float


def min_snr_weight(
    prediction: process_lib.Prediction, snr: arrays.PerExample, gamma: float
) -> arrays.PerExample:
    """min(snr, γ), carried from the x0 error it is defined on to the error of `prediction`."""
    # At a given x_t: |eps − eps_hat|² = snr·|x0 − x0_hat|², |v − v_hat|² = (snr + 1)·|x0 − x0_hat|²
    # (Process, equations 1 and 2), so that the weights are divided by these. On the straight path
    # |u − u_hat|² = |x0 − x0_hat|² / sigma² (equation 7), and sigma = 1 / (1 + √snr).
    match prediction:
        case "x0":
            return jnp.minimum(snr, gamma)
        case "eps":
            return jnp.minimum(snr, gamma) / snr
        case "v":
            return jnp.minimum(snr, gamma) / (snr + 1)
        case "velocity":
            return jnp.minimum(snr, gamma) / jnp.square(1 + jnp.sqrt(snr))


Denoise = Callable[[arrays.Latents, arrays.Timestep], jax.Array]
"""(x_t, t) → prediction."""


def squared_error(
    denoise: Denoise,
    x0: arrays.Latents,
    eps: arrays.Latents,
    t: arrays.Timestep,
    process: process_lib.Process,
) -> arrays.PerExample:
    """Mean squared error of the prediction of each example, float32."""
    # x_t = alpha·x0 + sigma·eps
    x_t = process.add_noise(x0, eps, t)
    # Differences, squares and means in float32, whatever the network computes in.
    prediction_hat = denoise(x_t, t).astype(jnp.float32)
    return jnp.mean(jnp.square(prediction_hat - process.target(x0, eps, t)), axis=(1, 2, 3))


def weighted(
    error: arrays.PerExample, t: arrays.Timestep, process: process_lib.Process, min_snr_gamma: float
) -> arrays.PerExample:
    """Errors as the objective weighs them; `min_snr_gamma` is ObjectiveConfig's."""
    if min_snr_gamma > 0:
        return error * min_snr_weight(process.prediction, process.snr(t), min_snr_gamma)
    return error


def denoising_loss(
    denoise: Denoise,
    x0: arrays.Latents,
    index: Int[arrays.AnyArray, "B"],
    keys: tuple[arrays.Key, arrays.Key],
    *,
    process: process_lib.Process,
    min_snr_gamma: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, metrics): weighted mean squared error of the prediction, each example at a timestep
    of its own. `keys` are those of timesteps and noise; `min_snr_gamma` is ObjectiveConfig's."""
    key_t, key_eps = keys
    t = rng.per_example(key_t, index, jax.random.randint, (), 0, process.schedule.num_timesteps)
    eps = rng.per_example(key_eps, index, jax.random.normal, x0.shape[1:])
    error = squared_error(denoise, x0, eps, t, process)
    return jnp.mean(weighted(error, t, process, min_snr_gamma)), {"mse": jnp.mean(error)}


@dataclasses.dataclass(frozen=True)
class DenoisingTask(tasks.Task):
    """Learn p(latents | embedding) from batches of cached `moments`, or means alone in their place,
    and `embedding`, with the `level` of each where the denoiser knows several; moments of one
    example are of `moments_shape` (h, w, C or 2C).

    `cond_drop_rate` and `min_snr_gamma` are LossConfig's.
    """

    denoiser: conditioning.Denoiser
    scaling: autoencoder.LatentScaling
    process: process_lib.Process
    cond_drop_rate: float
    min_snr_gamma: float
    moments_shape: tuple[int, int, int]

    @property
    def _num_channels(self) -> int:
        return len(self.scaling.latent_scale)

    def batch_spec(self) -> tasks.BatchSpec:
        """Moments, condition and place in the stream."""
        sizes = self.denoiser.config
        spec = {
            # As the step latents stores them.
            "moments": jax.ShapeDtypeStruct((1, *self.moments_shape), jnp.float16),
            "embedding": jax.ShapeDtypeStruct((1, sizes.stored_dim), sizes.condition_dtype),
            "index": jax.ShapeDtypeStruct((1,), jnp.int32),
        }
        if sizes.num_levels:
            spec["level"] = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        return spec

    def condition(self, batch: Mapping[str, Any]) -> arrays.Embedding:
        """What the denoiser is told of each example: its embedding, or tokens, then its level."""
        if "level" not in batch:
            return batch["embedding"]
        # Stored tokens are float16.
        parts = (jnp.asarray(batch[name], jnp.float32) for name in ("embedding", "level"))
        return jnp.concatenate(list(parts), axis=-1)

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters, and no further state."""
        mean = batch["moments"][..., : self._num_channels].astype(jnp.float32)
        t = jnp.zeros(mean.shape[0], jnp.int32)
        return self.denoiser.init(key, mean, t, self.condition(batch))["params"], {}

    def latents(
        self, moments: arrays.AnyArray, index: Int[arrays.AnyArray, "B"], key: arrays.Key
    ) -> arrays.Latents:
        """Scaled latents, sampled anew of the stored moments of each example."""
        moments = moments.astype(jnp.float32)
        shape = (*moments.shape[1:-1], self._num_channels)
        noise = rng.per_example(key, index, jax.random.normal, shape)
        return self.scaling.apply(autoencoder.sample_stored(moments, noise))

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """Weighted mean squared error of the prediction at a uniform timestep."""
        moments, embedding, index = batch["moments"], self.condition(batch), batch["index"]
        key_z, key_t, key_eps, key_drop = jax.random.split(key, 4)

        # latents
        x0 = self.latents(moments, index, key_z)

        # condition
        drop = rng.per_example(key_drop, index, jax.random.bernoulli, self.cond_drop_rate)
        embedding = conditioning.drop_condition(embedding, drop, self.denoiser.config.null)

        def denoise(x_t: arrays.Latents, t: arrays.Timestep) -> arrays.Latents:
            x_t = layers.like(params, x_t)
            return self.denoiser.apply({"params": params}, x_t, t, embedding)

        loss, metrics = denoising_loss(
            denoise,
            x0,
            index,
            (key_t, key_eps),
            process=self.process,
            min_snr_gamma=self.min_snr_gamma,
        )
        return tasks.LossOutput(loss, metrics, extra)
