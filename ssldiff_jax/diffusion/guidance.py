"""Classifier-free guidance (Ho and Salimans 2022), cond and uncond in one batch."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import prediction as prediction_lib
from ssldiff_jax.diffusion import schedule as schedule_lib

DenoiseFn: TypeAlias = Callable[[arrays.Latents, arrays.Timestep, arrays.Embedding], jax.Array]


@dataclasses.dataclass(frozen=True)
class GuidedX0:
    """x_t → x0_hat = uncond + guidance_scale·(cond − uncond).

    Guiding the network's output or x0 is the same: they are affine in each other. A scale of 1
    asks the network once instead of twice. `time_offset` is added to t before the network is told.
    """

    denoise: DenoiseFn
    schedule: schedule_lib.Schedule
    prediction: prediction_lib.Prediction
    guidance_scale: float = 1.0
    time_offset: int = 0

    @property
    def calls_per_example(self) -> int:
        """Network evaluations for each latent."""
        return 1 if self.guidance_scale == 1.0 else 2

    def __call__(
        self, x_t: arrays.Latents, t: arrays.Timestep, embedding: arrays.Embedding
    ) -> arrays.Latents:
        """Clean latents for `(B, h, w, C)` noisy ones."""
        told = t + self.time_offset
        if self.guidance_scale == 1.0:
            output = self.denoise(x_t, told, embedding)
        else:
            # Side by side, not one half after the other: a batch split over devices stays so.
            pair = lambda a, b: jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])
            null = jnp.zeros_like(embedding)
            both = self.denoise(pair(x_t, x_t), pair(told, told), pair(embedding, null))
            cond, uncond = both[0::2], both[1::2]
            output = uncond + self.guidance_scale * (cond - uncond)
        alpha, sigma = self.schedule.at(t)
        return prediction_lib.to_x0(self.prediction, output, x_t, alpha, sigma)
