"""The diffusion process: how noise is added to clean latents, and how a prediction undoes it."""

import dataclasses
from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Float

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import schedule as schedule_lib

Prediction: TypeAlias = Literal["eps", "x0", "v", "velocity"]

Noisy: TypeAlias = Float[arrays.AnyArray, "B ..."]
"""Latents or grids of any rank, the examples along the first axis."""


@dataclasses.dataclass(frozen=True)
class Process:
    """A schedule, and what the network predicts of what it is shown at timestep t.

    In the symbols of Ho et al. 2020 (ᾱ_t) and of Salimans and Ho 2022 (α_t = √ᾱ_t,
    σ_t = √(1 − ᾱ_t), v), with α_t² + σ_t² = 1 in 2 and 3, and α_t + σ_t = 1 in 7:

    1. x_t = α_t·x_0 + σ_t·ε with ε ~ N(0, I), the closed form of t + 1 steps of noise.
    2. v = α_t·ε − σ_t·x_0. With 1, (x_t, v) is (x_0, ε) turned by an angle whose cosine is α_t.
    3. The inverse of 2 is the transposed rotation: x_0 = α_t·x_t − σ_t·v, ε = σ_t·x_t + α_t·v.
    4. Solved for x_0, 1 gives x_0 = (x_t − σ_t·ε) / α_t: what a prediction of ε says of x_0.
    5. Solved for ε, 1 gives ε = (x_t − α_t·x_0) / σ_t: what a prediction of x_0 says of ε.
    6. SNR(t) = α_t² / σ_t², the scale between an error of x_0 and the same error of ε.
    7. velocity u = ε − x_0, which is dx_t / dσ_t on the straight path (Lipman et al. 2023). With 1,
       x_0 = x_t − σ_t·u and ε = x_t + α_t·u.

    Any prediction is affine in any other at a given x_t, so that guidance of one is guidance of
    all. Arrays have the examples along the first axis, `t` is `(B,)`; everything is float32.
    """

    schedule: schedule_lib.Schedule
    prediction: Prediction

    def __post_init__(self):
        if self.prediction == "v" and not self.schedule.preserves_variance:
            raise ValueError(
                "prediction must be eps, x0 or velocity with schedule.name=linear, got prediction=v"
            )
        if self.prediction == "velocity" and self.schedule.preserves_variance:
            raise ValueError(
                "prediction=velocity must come with schedule.name=linear, got "
                f"schedule.name={self.schedule.name}"
            )

    def add_noise(self, x0: Noisy, eps: Noisy, t: arrays.Timestep) -> Noisy:
        """x_t of clean latents and noise: equation 1."""
        alpha, sigma = self.schedule.at(t, x0.ndim)
        return alpha * x0 + sigma * eps

    def target(self, x0: Noisy, eps: Noisy, t: arrays.Timestep) -> Noisy:
        """What the network should predict."""
        match self.prediction:
            case "eps":
                return eps
            case "x0":
                return x0
            case "v":
                alpha, sigma = self.schedule.at(t, x0.ndim)
                return alpha * eps - sigma * x0  # 2
            case "velocity":
                return eps - x0  # 7

    def to_x0(self, prediction_hat: Noisy, x_t: Noisy, t: arrays.Timestep) -> Noisy:
        """The clean latents that a prediction implies."""
        alpha, sigma = self.schedule.at(t, x_t.ndim)
        match self.prediction:
            case "eps":
                return (x_t - sigma * prediction_hat) / alpha  # 4
            case "x0":
                return prediction_hat
            case "v":
                return alpha * x_t - sigma * prediction_hat  # 3
            case "velocity":
                return x_t - sigma * prediction_hat  # 7

    def to_eps(self, prediction_hat: Noisy, x_t: Noisy, t: arrays.Timestep) -> Noisy:
        """The noise that a prediction implies."""
        alpha, sigma = self.schedule.at(t, x_t.ndim)
        match self.prediction:
            case "eps":
                return prediction_hat
            case "x0":
                return (x_t - alpha * prediction_hat) / sigma  # 5
            case "v":
                return sigma * x_t + alpha * prediction_hat  # 3
            case "velocity":
                return x_t + alpha * prediction_hat  # 7

    def snr(self, t: arrays.Timestep) -> arrays.PerExample:
        """Signal over noise at t: equation 6."""
        alpha, sigma = self.schedule.at(t, ndim=1)
        return jnp.square(alpha / sigma)
