"""Noise schedules: alpha and sigma for every timestep, x_t = alpha·x0 + sigma·eps."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How much noise there is at t = 0 … num_timesteps − 1, least noise first.

    Three preserve variance, alpha² + sigma² = 1: `scaled_linear` is Rombach et al. 2022 (betas
    linear in their root), `linear_betas` Ho et al. 2020, `cosine` Nichol and Dhariwal 2021, betas
    clipped at 0.999. `linear` is the straight path of flow matching (Lipman et al. 2023),
    alpha + sigma = 1.
    """

    name: Literal["scaled_linear", "linear_betas", "cosine", "linear"]
    num_timesteps: int
    beta_start: float
    beta_end: float

    def __post_init__(self):
        if self.num_timesteps < 1:
            raise ValueError(f"num_timesteps must be at least 1, got {self.num_timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                "betas must have 0 < beta_start ≤ beta_end < 1, got "
                f"beta_start={self.beta_start}, beta_end={self.beta_end}"
            )

    @property
    def preserves_variance(self) -> bool:
        """Whether alpha² + sigma² = 1."""
        return self.name != "linear"

    @functools.cached_property
    def alpha_bar(self) -> Float[np.ndarray, "T"]:
        """The cumulative product of 1 − beta, float64, `(num_timesteps,)`.

        Raises ValueError for a path that has no betas.
        """
        if not self.preserves_variance:
            raise ValueError(
                "betas must come from schedule.name=scaled_linear, linear_betas or cosine, got "
                f"schedule.name={self.name}"
            )
        if self.name == "cosine":
            # 0.008: Nichol and Dhariwal's s, which keeps the first betas from being too small to
            # learn from.
            level = (
                np.cos(
                    (np.arange(self.num_timesteps + 1) / self.num_timesteps + 0.008)
                    / 1.008
                    * np.pi
                    / 2
                )
                ** 2
            )
            # The last one would be 1, and x_T without any x0.
            betas = np.clip(1 - level[1:] / level[:-1], 0, 0.999)
        elif self.name == "linear_betas":
            betas = np.linspace(self.beta_start, self.beta_end, self.num_timesteps)
        else:
            betas = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_timesteps) ** 2
        # float64 up to `at`: of 1 − alpha_bar, 0.0015 at first, float32 has four digits.
        return np.cumprod(1 - betas)

    @property
    def betas(self) -> Float[np.ndarray, "T"]:
        """The variance each timestep adds, float64."""
        # ᾱ_t / ᾱ_{t−1} = 1 − β_t, and ᾱ before the first timestep is 1.
        return 1 - self.alpha_bar / np.append(1.0, self.alpha_bar[:-1])

    @property
    def alphas(self) -> Float[np.ndarray, "T"]:
        """√alpha_bar, or 1 − sigma, float64."""
        return np.sqrt(self.alpha_bar) if self.preserves_variance else 1 - self.sigmas

    @property
    def sigmas(self) -> Float[np.ndarray, "T"]:
        """√(1 − alpha_bar), or the middles of as many equal parts of 0 … 1, float64."""
        if self.preserves_variance:
            return np.sqrt(1 - self.alpha_bar)
        # Middles, so that neither end of the path is among them: logarithms of both are taken.
        return (np.arange(self.num_timesteps) + 0.5) / self.num_timesteps

    def at(self, t: arrays.Timestep, ndim: int = 4) -> tuple[jax.Array, jax.Array]:
        """(alpha, sigma) at t, shaped `(B, 1, …)` to broadcast against `ndim` axes."""
        shape = (-1,) + (1,) * (ndim - 1)
        # Square roots are taken in float64, each on its own: alpha² + sigma² = 1 to float32's
        # rounding.
        alpha = jnp.asarray(self.alphas, jnp.float32)[t].reshape(shape)
        sigma = jnp.asarray(self.sigmas, jnp.float32)[t].reshape(shape)
        return alpha, sigma
