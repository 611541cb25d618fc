"""Solvers of the reverse process, each as the table of its coefficients.

Every solver here is linear in what it sees: the current x_t, the clean latents x0_hat that the
network finds in it, what the solver remembers of earlier steps, and fresh noise:

    x_next = a·x_t + b·x0_hat + Σ c_k·memory_k + d·noise
    memory ← p·x_t + q·x0_hat

so a solver is a few numbers for every step, and one line applies them to x_t.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays, rng
from ssldiff_jax.diffusion import schedule as schedule_lib


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """Which update, in how many steps, from which timestep down.

    `eta` is DDIM's stochasticity: 0 deterministic, 1 is DDPM over the same timesteps; beyond 1 a
    step would add more noise than there is where it ends. `paper` is DDIM as the published code for
    large images has it: its noise has the variance of single timesteps although it strides over
    many, and the network gets t + 1. `trailing` timesteps begin at t_start, `leading` ones end
    at 1, as latent diffusion spaces them where their number divides t_start + 1.
    """

    name: Literal["ddim", "ddpm", "dpmpp_2m", "plms", "paper"]
    num_solver_steps: int
    eta: float
    t_start: int
    spacing: Literal["trailing", "leading"]

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got eta={self.eta}")
        if self.eta and self.name != "ddim":
            raise ValueError(f"eta must be 0 but for ddim, got eta={self.eta}, name={self.name}")

    def require_within(self, schedule: schedule_lib.Schedule) -> None:
        """Raise ValueError where steps coincide or lie outside the schedule."""
        if not 0 <= self.t_start < schedule.num_timesteps:
            raise ValueError(
                f"t_start must lie in [0, {schedule.num_timesteps}), got t_start={self.t_start}"
            )
        # Leading timesteps are none of them 0.
        most = self.t_start + (self.spacing == "trailing")
        if not 1 <= self.num_solver_steps <= most:
            raise ValueError(
                f"num_solver_steps must lie in [1, {most}] with spacing={self.spacing}, got "
                f"num_solver_steps={self.num_solver_steps}, t_start={self.t_start}"
            )

    @property
    def time_offset(self) -> int:
        """What is added to the t that the network gets."""
        return 1 if self.name == "paper" else 0


@dataclasses.dataclass(frozen=True)
class SolverTable:
    """Coefficients of S network evaluations, float32; where every step ends, the first starts.

    `history` weighs K memories, the newest first; `keep` is 1 where the step's own is kept.
    """

    t: Int[np.ndarray, "S"]
    x: Float[np.ndarray, "S"]
    x0: Float[np.ndarray, "S"]
    history: Float[np.ndarray, "S K"]
    noise: Float[np.ndarray, "S"]
    memory_x: Float[np.ndarray, "S"]
    memory_x0: Float[np.ndarray, "S"]
    keep: Float[np.ndarray, "S"]
    alpha_next: Float[np.ndarray, "S"]
    sigma_next: Float[np.ndarray, "S"]
    alpha_start: float
    sigma_start: float

    def columns(self) -> dict[str, np.ndarray]:
        """What differs from step to step, as a dictionary of arrays to scan over."""
        table = dataclasses.asdict(self)
        return {name: column for name, column in table.items() if np.ndim(column)}

    def rows(self) -> list[dict[str, np.ndarray | np.generic]]:
        """The same step by step, for those who walk over them from the host."""
        columns = self.columns()
        return [{name: column[i] for name, column in columns.items()} for i in range(len(self.t))]

    def blank_history(self, shape: tuple[int, ...]) -> Float[jax.Array, "K ..."]:
        """Nothing remembered, for x_t of `shape`."""
        return jnp.zeros((self.history.shape[1], *shape))


def advance(row: dict, x_t, x0_hat, history, noise) -> tuple[jax.Array, jax.Array]:
    """(x_next, history): one step with the coefficients of `row`."""
    x_next = row["x"] * x_t + row["x0"] * x0_hat + row["noise"] * noise
    for k in range(len(history)):
        x_next = x_next + row["history"][k] * history[k]
    if len(history):
        memory = row["memory_x"] * x_t + row["memory_x0"] * x0_hat
        # The newest first; the oldest falls out.
        pushed = jnp.concatenate([memory[None], history[:-1]])
        history = jnp.where(row["keep"] > 0, pushed, history)
    return x_next, history


def solver_table(config: SolverConfig, schedule: schedule_lib.Schedule) -> SolverTable:
    """Tabulate a solver; its last step ends at the clean x0_hat.

    Raises ValueError where steps coincide or start outside the schedule.
    """
    config.require_within(schedule)
    t = _timesteps(config)
    levels = _Levels.between(t, schedule, config.spacing)
    if config.name == "dpmpp_2m":
        columns = _dpmpp_2m(levels)
    elif config.name == "plms":
        levels, columns = _plms(levels)
    elif config.name == "paper":
        columns = _ddim(levels, _paper_noise(levels, schedule))
    else:
        eta = 1.0 if config.name == "ddpm" else config.eta
        columns = _ddim(levels, _ddim_noise(levels, eta))
    rows = len(levels.t)
    rest = {
        "history": np.zeros((rows, 0)),
        "memory_x": np.zeros(rows),
        "memory_x0": np.ones(rows),
        "keep": np.ones(rows),
        "alpha_next": levels.alpha_next,
        "sigma_next": levels.sigma_next,
    }
    as_float = {k: v.astype(np.float32) for k, v in (rest | columns).items()}
    start = (float(levels.alpha[0]), float(levels.sigma[0]))
    return SolverTable(
        levels.t.astype(np.int32), **as_float, alpha_start=start[0], sigma_start=start[1]
    )


def _timesteps(config: SolverConfig) -> np.ndarray:
    steps = config.num_solver_steps
    if config.spacing == "leading":
        # Strides are fractions: whole ones leave up to half of the schedule out (600 steps of 1000
        # would begin at t = 600).
        return np.arange(steps)[::-1] * (config.t_start + 1) // steps + 1
    # Begins at t_start, and the last step spans as much as the others.
    return np.round((config.t_start + 1) * np.arange(steps, 0, -1) / steps).astype(int) - 1


@dataclasses.dataclass(frozen=True)
class _Levels:
    """alpha and sigma where every step starts, and where it ends."""

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    alpha_next: np.ndarray
    sigma_next: np.ndarray

    @classmethod
    def between(cls, t: np.ndarray, schedule: schedule_lib.Schedule, spacing: str) -> "_Levels":
        alpha, sigma = schedule.alphas[t], schedule.sigmas[t]
        # Leading timesteps end at t = 0, which still carries a little noise; trailing at none.
        end = (schedule.alphas[0], schedule.sigmas[0]) if spacing == "leading" else (1.0, 0.0)
        return cls(t, alpha, sigma, np.append(alpha[1:], end[0]), np.append(sigma[1:], end[1]))

    def take(self, rows: list[int]) -> "_Levels":
        return _Levels(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def _ddim(levels: _Levels, noise: np.ndarray) -> dict[str, np.ndarray]:
    """Song et al. 2021, equation 12, for any standard deviation of the noise."""
    # x_next = alpha'·x0_hat + √(sigma'² − noise²)·eps_hat + noise·z,
    # with eps_hat = (x_t − alpha·x0_hat) / sigma put in.
    eps = np.sqrt(levels.sigma_next**2 - noise**2)
    return {
        "x": eps / levels.sigma,
        "x0": levels.alpha_next - eps * levels.alpha / levels.sigma,
        "noise": noise,
    }


def _ddim_noise(levels: _Levels, eta: float) -> np.ndarray:
    """Equation 16; eta = 1 is the DDPM posterior."""
    # eta·√((1 − ᾱ') / (1 − ᾱ))·√(1 − ᾱ / ᾱ'), where 1 − ᾱ / ᾱ' is the noise that the step from
    # there to here adds, sigma² − (alpha / alpha')²·sigma'² on any path. The last step ends at
    # sigma' = 0, and adds none.
    ratio = levels.alpha / levels.alpha_next
    added = levels.sigma**2 - (ratio * levels.sigma_next) ** 2
    return eta * levels.sigma_next / levels.sigma * np.sqrt(added)


def _paper_noise(levels: _Levels, schedule: schedule_lib.Schedule) -> np.ndarray:
    """The posterior of one timestep, whatever the stride."""
    # Over strides of 20 this is an eta of about 0.24.
    return np.sqrt(schedule.betas[levels.t]) * levels.sigma_next / levels.sigma


def _dpmpp_2m(levels: _Levels) -> dict[str, np.ndarray]:
    """Lu et al. 2022, algorithm 2; first and last step are of first order. Remembers x0_hat."""
    # λ = log(alpha / sigma), h = λ' − λ; infinite at the end, where −expm1(−h) is 1 and x0_hat
    # stays.
    with np.errstate(divide="ignore"):
        start = np.log(levels.alpha / levels.sigma)
        h = np.log(levels.alpha_next / levels.sigma_next) - start
    # 1 / 2r with r = h_before / h: D = (1 + 1/2r)·x0_hat − 1/2r·x0_hat_before.
    slope = np.zeros_like(h)
    if len(h) > 2:
        slope[1:-1] = h[1:-1] / (2 * h[:-2])
    # x_next = sigma' / sigma·x_t + alpha'·(1 − e^−h)·D; expm1 keeps the digits of a small h.
    gain = levels.alpha_next * -np.expm1(-h)
    return {
        "x": levels.sigma_next / levels.sigma,
        "x0": gain * (1 + slope),
        "history": -(gain * slope)[:, None],
        "noise": np.zeros_like(h),
    }


# Adams-Bashforth: weights of eps_hat now and before, by how many are remembered.
_ADAMS = (
    np.array([1.0, 0, 0, 0]),
    np.array([3.0, -1, 0, 0]) / 2,
    np.array([23.0, -16, 5, 0]) / 12,
    np.array([55.0, -59, 37, -9]) / 24,
)


def _plms(levels: _Levels) -> tuple[_Levels, dict[str, np.ndarray]]:
    """Liu et al. 2022 (PNDM, pseudo linear multistep). Remembers eps_hat.

    The first step is taken twice: the second time with the mean of eps_hat at its start and at
    its end, from where it came; so there is one evaluation more than steps.
    """
    steps = len(levels.t)
    # DDIM in eps_hat: x_next = alpha' / alpha·x_t + (sigma' − sigma·alpha' / alpha)·eps_hat.
    drift = levels.sigma_next - levels.alpha_next * levels.sigma / levels.alpha
    rows = [0, min(1, steps - 1), *range(1, steps)]
    weights = [_ADAMS[0], None, *(_ADAMS[min(i, 3)] for i in range(1, steps))]
    taken = levels.take(rows)
    # The second row starts and ends where the first ends.
    ends = levels.take([0, 0, *range(1, steps)])
    taken = dataclasses.replace(taken, alpha_next=ends.alpha_next, sigma_next=ends.sigma_next)

    x, eps, history = np.zeros(steps + 1), np.zeros(steps + 1), np.zeros((steps + 1, 3))
    for i, weight in enumerate(weights):
        if weight is None:
            # x_t is x_1 = x_0 + … + drift·eps_0 by now: half of eps_0 is taken back, half of eps_1
            # added.
            x[i], eps[i], history[i, 0] = 1.0, drift[0] / 2, -drift[0] / 2
            continue
        at = max(i - 1, 0)
        x[i] = levels.alpha_next[at] / levels.alpha[at]
        eps[i], history[i] = drift[at] * weight[0], drift[at] * weight[1:]
    # What was seen at the end of the first trial step serves the mean alone.
    keep = np.ones(steps + 1)
    keep[1] = 0
    return taken, {
        # eps_hat = (x_t − alpha·x0_hat) / sigma, put in for eps and for the memory.
        "x": x + eps / taken.sigma,
        "x0": -eps * taken.alpha / taken.sigma,
        "history": history,
        "noise": np.zeros(steps + 1),
        "memory_x": 1 / taken.sigma,
        "memory_x0": -taken.alpha / taken.sigma,
        "keep": keep,
    }


def sample(
    x0_hat_fn,
    table: SolverTable,
    shape: tuple[int, ...],
    embedding: arrays.Embedding,
    key,
    first=0,
):
    """Sample latents of `shape` (B, h, w, C), one for each embedding: the plain patch sampler.

    Patch i has the noise of block `first` + i in the first row of a canvas."""
    noise = functools.partial(patch_noise, key, shape, first)

    def step(carry, row):
        x_t, history, i = carry
        t = jnp.full(shape[0], row["t"])
        x0_hat = x0_hat_fn(x_t, t, embedding)
        return (*advance(row, x_t, x0_hat, history, noise(i + 1)), i + 1), None

    start = (noise(0), table.blank_history(shape), 0)
    (x0, _, _), _ = jax.lax.scan(step, start, table.columns())
    return x0


def patch_noise(key: arrays.Key, shape: tuple[int, ...], first, step) -> jax.Array:
    """Noise of a step for patches of `shape` (B, h, w, C): patch i has that of block `first` + i in
    the first row of a canvas; step 0 is the noise that they begin from."""
    keys = jax.vmap(lambda i: rng.at_place(key, step, 0, i))(first + jnp.arange(shape[0]))
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(keys)
