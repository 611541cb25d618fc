"""Classifier-free guidance (Ho and Salimans 2022), cond and uncond in one batch."""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import process as process_lib

DenoiseFn: TypeAlias = Callable[[arrays.Latents, arrays.Timestep, arrays.Embedding], jax.Array]

Kind: TypeAlias = Literal["plain", "guided"]
"""What a timestep asks of the network: one evaluation of each latent, or two."""


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
    """How far x0_hat is moved away from the unconditional prediction.

    Attributes:
        scale: s in uncond + s·(cond − uncond); 1 is none.
        interval: the part of the timesteps that is guided, as fractions, 0 the least noise
            (Kynkäänniemi et al. 2024); elsewhere the network is called once.
        rescale: how far x0_hat gets back the spread of cond, 0 not at all, 1 wholly
            (Lin et al. 2024).
    """

    scale: float
    interval: tuple[float, float]
    rescale: float

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval must be 0 ≤ low ≤ high ≤ 1, got {self.interval}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], got rescale={self.rescale}")

    def is_guided(self, t: arrays.AnyArray, num_timesteps: int) -> arrays.AnyArray:
        """Whether timesteps lie in the interval."""
        low, high = (round(edge * num_timesteps) for edge in self.interval)
        return (t >= low) & (t < high)


UNGUIDED = GuidanceConfig(scale=1.0, interval=(0.0, 1.0), rescale=0.0)


@dataclasses.dataclass(frozen=True)
class GuidedX0:
    """x_t → x0_hat = uncond + scale·(cond − uncond).

    Guiding the network's output or x0 is the same: they are affine in each other. Where there is
    nothing to guide the network is called once instead of twice. `time_offset` is added to t before
    the network is shown it; `null` makes unconditional conditions of others.
    """

    denoise: DenoiseFn
    process: process_lib.Process
    config: GuidanceConfig = UNGUIDED
    time_offset: int = 0
    null: Callable[[arrays.Embedding], arrays.Embedding] = jnp.zeros_like

    def is_guided(self, t: arrays.AnyArray) -> arrays.AnyArray:
        """Whether timesteps are guided."""
        return self.config.is_guided(t, self.process.schedule.num_timesteps)

    def calls_per_example(self, t: Int[np.ndarray, "S"]) -> Int[np.ndarray, "S"]:
        """Network evaluations for each latent at timesteps t."""
        return 1 + (self.config.scale != 1.0) * self.is_guided(t)

    def kind(self, t: int) -> Kind:
        """Of a timestep that the host knows."""
        return "guided" if self.calls_per_example(np.array([t]))[0] == 2 else "plain"

    def __call__(
        self, x_t: arrays.Latents, t: arrays.Timestep, embedding: arrays.Embedding
    ) -> arrays.Latents:
        """Clean latents for `(B, h, w, C)` noisy ones, all at the same timestep where an interval
        is guided: then the program holds the network twice, and chooses. Who knows t beforehand
        asks for its `kind` and takes `plain` or `guided`."""
        if self.config.scale == 1.0:
            return self.plain(x_t, t, embedding)
        if self.config.interval == (0.0, 1.0):
            return self.guided(x_t, t, embedding)
        # A branch, not a choice of results: where nothing is guided the second call is never made.
        return jax.lax.cond(self.is_guided(t)[0], self.guided, self.plain, x_t, t, embedding)

    def plain(
        self, x_t: arrays.Latents, t: arrays.Timestep, embedding: arrays.Embedding
    ) -> arrays.Latents:
        """Clean latents of the condition alone."""
        prediction_hat = self.denoise(x_t, t + self.time_offset, embedding)
        return self.process.to_x0(prediction_hat, x_t, t)

    def guided(
        self, x_t: arrays.Latents, t: arrays.Timestep, embedding: arrays.Embedding
    ) -> arrays.Latents:
        """Clean latents moved away from the unconditional ones."""
        shown_t, null = t + self.time_offset, self.null(embedding)
        both = self.denoise(pairs(x_t, x_t), pairs(shown_t, shown_t), pairs(embedding, null))
        cond, uncond = (self.process.to_x0(p, x_t, t) for p in (both[0::2], both[1::2]))
        return moved(cond, uncond, self.config.scale, self.config.rescale)


def moved(
    cond: arrays.Latents, uncond: arrays.Latents, scale: float | arrays.AnyArray, rescale: float
) -> arrays.Latents:
    """Clean latents of the condition moved away from the unconditional ones; `scale` is one number,
    or has an axis for every axis of the latents."""
    guided = uncond + scale * (cond - uncond)
    if rescale == 0:
        return guided
    # Guidance raises the contrast; this is the deviation that x0_hat had before (Lin et al. 2024).
    as_before = guided * _deviation(cond) / jnp.maximum(_deviation(guided), 1e-6)
    return guided + rescale * (as_before - guided)


def pairs(a: Shaped[arrays.AnyArray, "B *S"], b: Shaped[arrays.AnyArray, "B *S"]) -> jax.Array:
    """a_0, b_0, a_1, b_1 … along the batch."""
    # Side by side, not one half after the other: a batch split over devices stays so.
    return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])


def _deviation(x: arrays.Latents) -> Float[jax.Array, "B 1 1 1"]:
    return jnp.std(x, axis=(1, 2, 3), keepdims=True)
