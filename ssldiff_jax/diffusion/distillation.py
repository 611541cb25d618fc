"""A student of the denoiser: guidance is one of its inputs, and a long step takes one call.

What a student finds at x_t is the x0_hat with which a single step of DDIM, from t to where it is
told to end, arrives where the guided teacher does (Salimans and Ho 2022, progressive distillation;
Meng et al. 2023, guidance as an input). A stride is one of n equal parts of the way from the most
noise to none. It is learnt of three teachers:

- no stride (it ends where it begins): the teacher's guided x0_hat, so that any solver may use it;
- strides of n = `visits`: some steps of the guided teacher, DPM-Solver++ of second order;
- longer ones, n = `visits` / 2 … 1: two strides of the student itself, of its averaged weights, at
  twice the n (Frans et al. 2025, shortcut models).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ssldiff_jax.core import arrays, layers, rng, tasks
from ssldiff_jax.diffusion import conditioning, guidance
from ssldiff_jax.diffusion import loss as loss_lib
from ssldiff_jax.diffusion import process as process_lib

CLEAN = -1
"""The timestep after the last: no noise is left."""

Lesson: TypeAlias = Literal["guidance", "steps", "strides"]

SHARES: Mapping[Lesson, float] = {"guidance": 0.25, "steps": 0.5, "strides": 0.25}
"""How often each is given: a batch has one, so that no other teacher is asked."""


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """What a student learns.

    Attributes:
        visits: strides that the teacher's own steps are distilled into, a power of 2; 0 learns
            nothing.
        steps: of the teacher in each of these.
        scales: least and greatest scale of guidance.
        guidance: of the teacher but for its scale: the timesteps that are guided, and rescaling.
        t_start: the timestep of the most noise.
    """

    visits: int
    steps: int
    scales: tuple[float, float]
    guidance: guidance.GuidanceConfig
    t_start: int

    @property
    def imitated(self) -> tuple[tuple[float, float], float, int]:
        """What of the teacher's sampling is part of what is learnt."""
        return self.guidance.interval, self.guidance.rescale, self.t_start

    @property
    def taught(self) -> tuple[int, ...]:
        """Numbers of strides that a student can make an image in, the most first."""
        return tuple(self.visits >> k for k in range(self.visits.bit_length()))

    def edge(self, part: arrays.AnyArray) -> arrays.AnyArray:
        """The timestep at a part of the way from the most noise (0) to none (1), as solvers with
        `trailing` timesteps have it."""
        way = (self.t_start + 1) * (1 - part)
        return jnp.round(way).astype(jnp.int32) - 1


def levels(
    process: process_lib.Process, t: Int[arrays.AnyArray, "B"], ndim: int
) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma) at t, `(B, 1, …)` with `ndim` axes; of CLEAN they are 1 and 0."""
    alpha, sigma = process.schedule.at(jnp.maximum(t, 0), ndim)
    is_clean = (t == CLEAN).reshape((-1,) + (1,) * (ndim - 1))
    return jnp.where(is_clean, 1.0, alpha), jnp.where(is_clean, 0.0, sigma)


def step_to(
    process: process_lib.Process,
    x_t: arrays.Latents,
    x0_hat: arrays.Latents,
    t: arrays.Timestep,
    until: arrays.Timestep,
) -> arrays.Latents:
    """Where a step of DDIM from t ends: alpha'·x0_hat + sigma'·eps_hat."""
    x, x0 = _coefficients(process, t, until, x_t.ndim)
    return x * x_t + x0 * x0_hat


def x0_of_step(
    process: process_lib.Process,
    x_t: arrays.Latents,
    x_until: arrays.Latents,
    t: arrays.Timestep,
    until: arrays.Timestep,
) -> arrays.Latents:
    """The x0_hat with which `step_to` ends at `x_until`; until < t."""
    x, x0 = _coefficients(process, t, until, x_t.ndim)
    return (x_until - x * x_t) / x0


def _coefficients(process, t, until, ndim: int) -> tuple[jax.Array, jax.Array]:
    alpha, sigma = levels(process, t, ndim)
    alpha_until, sigma_until = levels(process, until, ndim)
    # eps_hat = (x_t − alpha·x0_hat) / sigma put in.
    return sigma_until / sigma, alpha_until - alpha * sigma_until / sigma


X0Fn = Callable[[arrays.Latents, arrays.Timestep], arrays.Latents]
"""(x_t, t) → x0_hat."""


def follow(
    process: process_lib.Process, x0_hat_fn: X0Fn, x_t: arrays.Latents, edges: list[jax.Array]
) -> arrays.Latents:
    """x_t taken down `edges`, timesteps (B,) each, by DPM-Solver++ of second order; the first step,
    and one that ends at CLEAN, are of first order."""
    half_snr_log = lambda t: jnp.log(jnp.divide(*levels(process, t, x_t.ndim)))
    before = h_before = None
    for t, until in itertools.pairwise(edges):
        x0_hat = estimate = x0_hat_fn(x_t, t)
        h = half_snr_log(until) - half_snr_log(t)
        if before is not None:
            # Infinite where no noise is left.
            slope = jnp.where(jnp.isfinite(h), h, 0.0) / (2 * h_before)
            estimate = x0_hat + slope * (x0_hat - before)
        x_t = step_to(process, x_t, estimate, t, until)
        before, h_before = x0_hat, h
    return x_t


@dataclasses.dataclass(frozen=True)
class DistillationTask(tasks.Task):
    """Learn long guided steps from the same batches as the denoiser, `teaching`."""

    teaching: loss_lib.DenoisingTask
    curriculum: Curriculum
    # None where only shapes are looked at.
    teacher_params: Any

    @property
    def student(self) -> conditioning.Denoiser:
        """The network that learns."""
        return conditioning.Denoiser(self.teaching.denoiser.config.of_student)

    def batch_spec(self) -> tasks.BatchSpec:
        """The denoiser's."""
        return self.teaching.batch_spec()

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters: the teacher's, and of what it has not; no gradient reaches the teacher."""
        teacher = self.teacher_params
        if teacher is None:
            teacher, _ = self.teaching.init(key, batch)
        x_t = jnp.zeros((len(batch["index"]), *self._latents_shape))
        t = jnp.zeros(len(x_t), jnp.int32)
        step = conditioning.Step(t, jnp.ones(len(x_t)))
        own = self.student.init(key, x_t, t, self.teaching.condition(batch), step)["params"]
        return {**own, **teacher}, {"teacher": teacher}

    @property
    def _latents_shape(self) -> tuple[int, int, int]:
        *size, _ = self.teaching.moments_shape
        return (*size, len(self.teaching.scaling.latent_scale))

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """Mean squared error of x0_hat, weighted by the SNR where it lies between 1 and 5: steps
        from much noise and from little count as well."""
        index, process = batch["index"], self.teaching.process
        embedding = self.teaching.condition(batch)
        key_z, key_eps, key_lesson, key_t, key_scale = jax.random.split(key, 5)
        x0 = self.teaching.latents(batch["moments"], index, key_z)
        eps = rng.per_example(key_eps, index, jax.random.normal, x0.shape[1:])
        scale = rng.per_example(
            key_scale, index, jax.random.uniform, (), jnp.float32, *self.curriculum.scales
        )
        # One lesson for the whole batch, so that only its teacher is asked; its strides differ.
        lesson, edges = self._lesson(key_lesson, key_t, index)
        t, until = edges[0], edges[-1]
        x_t = process.add_noise(x0, eps, t)

        teacher = self._guided_teacher(extra["teacher"], embedding, scale)
        student = self._student(ema_params, embedding, scale)
        target = jax.lax.switch(
            lesson,
            [
                lambda: teacher(x_t, t),
                lambda: x0_of_step(
                    process, x_t, follow(process, teacher, x_t, list(edges)), t, until
                ),
                lambda: x0_of_step(
                    process, x_t, self._two_strides(student, x_t, t, until), t, until
                ),
            ],
        )
        x0_hat = self._student(params, embedding, scale)(x_t, t, until)
        error = jnp.mean(jnp.square(x0_hat - jax.lax.stop_gradient(target)), axis=(1, 2, 3))
        loss = jnp.mean(error * jnp.clip(process.snr(t), 1.0, 5.0))
        return tasks.LossOutput(loss, {"mse": jnp.mean(error)}, extra)

    def _lesson(
        self, key: arrays.Key, key_t: arrays.Key, index: Int[arrays.AnyArray, "B"]
    ) -> tuple[jax.Array, Int[jax.Array, "E B"]]:
        """(number of the lesson, timesteps that its steps end at, `steps` + 1 of them)."""
        about, key_lesson, key_n = self.curriculum, *jax.random.split(key)
        shares = jnp.log(jnp.array(list(SHARES.values())))
        # With one visit the teacher's steps are followed to the end, and no stride is longer.
        if about.visits == 1:
            shares = shares[:2]
        lesson = jax.random.categorical(key_lesson, shares)
        longer = jnp.array(about.taught[1:] or about.taught)
        n = jnp.where(
            lesson == 1, about.visits, longer[jax.random.randint(key_n, (), 0, len(longer))]
        )
        at = rng.per_example(key_t, index, jax.random.uniform, ())
        stride = jnp.floor(at * n)
        parts = jnp.linspace(0.0, 1.0, about.steps + 1)[:, None]
        strides = about.edge((stride + parts) / n)
        anywhere = jnp.floor(at * (about.t_start + 1)).astype(jnp.int32)
        return lesson, jnp.where(lesson == 0, anywhere, strides)

    def _two_strides(self, student, x_t, t, until) -> arrays.Latents:
        # CLEAN is one below the last timestep, so that the middle of (t, CLEAN) is rounded as
        # `Curriculum.edge` rounds it, up to one.
        middle = (t + until) // 2
        x_middle = step_to(self.teaching.process, x_t, student(x_t, t, middle), t, middle)
        x0_hat = student(x_middle, middle, until)
        return step_to(self.teaching.process, x_middle, x0_hat, middle, until)

    def _guided_teacher(self, params: Any, embedding, scale: Float[jax.Array, "B"]) -> X0Fn:
        """x0_hat of the teacher, guided where timesteps are; both calls in one batch."""
        about, teaching = self.curriculum.guidance, self.teaching
        num_timesteps = teaching.process.schedule.num_timesteps

        def x0_hat(x_t: arrays.Latents, t: arrays.Timestep) -> arrays.Latents:
            condition = jnp.asarray(embedding, jnp.float32)
            both = guidance.pairs(condition, teaching.denoiser.config.null(condition))
            shown = (guidance.pairs(x_t, x_t), guidance.pairs(t, t))
            prediction = _in_float32(teaching.denoiser, params, *shown, both)
            x0 = teaching.process.to_x0(prediction, *shown)
            cond, uncond = x0[0::2], x0[1::2]
            moved = guidance.moved(cond, uncond, scale[:, None, None, None], about.rescale)
            is_guided = about.is_guided(t, num_timesteps)
            return jnp.where(is_guided[:, None, None, None], moved, cond)

        return x0_hat

    def _student(self, params: Any, embedding, scale) -> Callable[..., arrays.Latents]:
        """(x_t, t, until) → x0_hat."""

        def x0_hat(x_t: arrays.Latents, t: arrays.Timestep, until: arrays.Timestep):
            step = conditioning.Step(until, scale)
            prediction = _in_float32(self.student, params, x_t, t, embedding, step)
            return self.teaching.process.to_x0(prediction, x_t, t)

        return x0_hat


def _in_float32(network: conditioning.Denoiser, params: Any, x_t, *rest) -> jax.Array:
    """A prediction; squares and means are taken of float32, whatever the network computes in."""
    return network.apply({"params": params}, layers.like(params, x_t), *rest).astype(jnp.float32)


def until_of(t: Int[np.ndarray, "S"], num_timesteps: int) -> Int[np.ndarray, "T"]:
    """For every timestep where a student's step from it ends, where its steps begin at `t`; the
    others end where they begin."""
    table = np.arange(num_timesteps)
    table[t] = np.append(t[1:], CLEAN)
    return table
