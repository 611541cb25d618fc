"""Solvers of the reverse process, each as the table of its coefficients.

Every solver here is linear in what it sees:

    x_next = a·x_t + b·x0_hat + c·x0_hat_previous + d·noise

so a solver is four numbers for every step, and whoever holds x_t applies them in one line.
"""

import dataclasses
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays
from ssldiff_jax.diffusion import schedule as schedule_lib


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """Which update, in how many steps, from which timestep down.

    `eta` is DDIM's stochasticity: 0 deterministic, 1 is DDPM over the same timesteps.
    """

    name: Literal["ddim", "ddpm", "dpmpp_2m"] = "dpmpp_2m"
    num_solver_steps: int = 20
    eta: float = 0.0
    t_start: int = 999


@dataclasses.dataclass(frozen=True)
class SolverTable:
    """Coefficients of S steps, float32 `(S,)` each, and where every step starts and ends."""

    t: Int[np.ndarray, "S"]
    x: Float[np.ndarray, "S"]
    x0: Float[np.ndarray, "S"]
    x0_previous: Float[np.ndarray, "S"]
    noise: Float[np.ndarray, "S"]
    alpha_next: Float[np.ndarray, "S"]
    sigma_next: Float[np.ndarray, "S"]

    def columns(self) -> dict[str, np.ndarray]:
        """The table as a dictionary of arrays, to scan over."""
        return dataclasses.asdict(self)


def advance(row: dict, x_t, x0_hat, x0_previous, noise) -> jax.Array:
    """One step with the coefficients of `row`."""
    return (
        row["x"] * x_t
        + row["x0"] * x0_hat
        + row["x0_previous"] * x0_previous
        + row["noise"] * noise
    )


def solver_table(config: SolverConfig, schedule: schedule_lib.Schedule) -> SolverTable:
    """Tabulate a solver; its last step ends at the clean x0_hat.

    Raises ValueError where the steps cannot be told apart or start outside the schedule.
    """
    steps = config.num_solver_steps
    if not 0 <= config.t_start < schedule.num_timesteps:
        raise ValueError(
            f"t_start must lie in [0, {schedule.num_timesteps}), got t_start={config.t_start}"
        )
    if not 1 <= steps <= config.t_start + 1:
        raise ValueError(
            f"num_solver_steps must lie in [1, t_start + 1], got num_solver_steps={steps}, "
            f"t_start={config.t_start}"
        )
    # Trailing spacing: begins at t_start, and the last step spans as much as the others.
    t = np.round((config.t_start + 1) * np.arange(steps, 0, -1) / steps).astype(np.int32) - 1
    alpha, sigma = schedule.alphas[t], schedule.sigmas[t]
    alpha_next, sigma_next = np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0)
    if config.name == "dpmpp_2m":
        columns = _dpmpp_2m(alpha, sigma, alpha_next, sigma_next)
    else:
        eta = 1.0 if config.name == "ddpm" else config.eta
        columns = _ddim(alpha, sigma, alpha_next, sigma_next, eta)
    as_float = {k: v.astype(np.float32) for k, v in columns.items()}
    return SolverTable(
        t=t,
        **as_float,
        alpha_next=alpha_next.astype(np.float32),
        sigma_next=sigma_next.astype(np.float32),
    )


def _ddim(alpha, sigma, alpha_next, sigma_next, eta) -> dict[str, np.ndarray]:
    """Song et al. 2021, equations 12 and 16; eta = 1 is the DDPM posterior."""
    noise = eta * sigma_next / sigma * np.sqrt(1 - (alpha / alpha_next) ** 2)
    eps = np.sqrt(sigma_next**2 - noise**2)
    return {
        "x": eps / sigma,
        "x0": alpha_next - eps * alpha / sigma,
        "x0_previous": np.zeros_like(eps),
        "noise": noise,
    }


def _dpmpp_2m(alpha, sigma, alpha_next, sigma_next) -> dict[str, np.ndarray]:
    """Lu et al. 2022, algorithm 2; first and last step are of first order."""
    with np.errstate(divide="ignore"):
        h = np.log(alpha_next / sigma_next) - np.log(alpha / sigma)
    slope = np.zeros_like(h)
    if len(h) > 2:
        slope[1:-1] = h[1:-1] / (2 * h[:-2])
    gain = alpha_next * -np.expm1(-h)
    return {
        "x": sigma_next / sigma,
        "x0": gain * (1 + slope),
        "x0_previous": -gain * slope,
        "noise": np.zeros_like(h),
    }


def sample(x0_hat_fn, table: SolverTable, shape: tuple[int, ...], embedding: arrays.Embedding, key):
    """Draw latents of `shape` (B, h, w, C), one for each embedding: the plain patch sampler."""
    key_start, key_steps = jax.random.split(key)
    x_start = jax.random.normal(key_start, shape)

    def step(carry, row):
        x_t, x0_previous, i = carry
        t = jax.numpy.full(shape[0], row["t"])
        x0_hat = x0_hat_fn(x_t, t, embedding)
        noise = jax.random.normal(jax.random.fold_in(key_steps, i), shape)
        return (advance(row, x_t, x0_hat, x0_previous, noise), x0_hat, i + 1), None

    start = (x_start, jax.numpy.zeros(shape), 0)
    (x0, _, _), _ = jax.lax.scan(step, start, table.columns())
    return x0
