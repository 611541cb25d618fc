"""A student's lessons, against the exact paths of a Gaussian, whose best denoiser is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import tasks
from ssldiff_jax.diffusion import (
    conditioning,
    distillation,
    guidance,
    process,
    schedule,
    solvers,
    unet,
)
from ssldiff_jax.diffusion import loss as loss_lib

PROCESSES = {
    "v": process.Process(schedule.Schedule("cosine", 1000, 1e-4, 2e-2), "v"),
    "eps": process.Process(schedule.Schedule("scaled_linear", 1000, 1.5e-3, 1.95e-2), "eps"),
    "velocity": process.Process(schedule.Schedule("linear", 1000, 1e-4, 2e-2), "velocity"),
}
VARIANCE, MEAN = 0.36, 0.8
GUIDED = guidance.GuidanceConfig(2.0, (0.4, 1.0), 0.0)
CURRICULUM = distillation.Curriculum(4, 3, (1.0, 4.0), GUIDED, 990)
each_process = pytest.mark.parametrize("name", PROCESSES)


def posterior_mean(process_):
    """E[x0 | x_t] of x0 ~ N(MEAN, VARIANCE)."""

    def x0_hat(x_t, t):
        alpha, sigma = process_.schedule.at(t, x_t.ndim)
        gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        return MEAN + gain * (x_t - alpha * MEAN)

    return x0_hat


def exact(process_, x_t, t, until):
    """Where the probability flow takes x_t: a Gaussian's quantiles stay."""
    levels = lambda at: (
        (1.0, 0.0)
        if at == distillation.CLEAN
        else (process_.schedule.alphas[at], process_.schedule.sigmas[at])
    )
    spread = lambda at: np.sqrt(levels(at)[0] ** 2 * VARIANCE + levels(at)[1] ** 2)
    score = (x_t - levels(t)[0] * MEAN) / spread(t)
    return levels(until)[0] * MEAN + score * spread(until)


@each_process
@pytest.mark.parametrize(("t", "until"), [(990, 742), (495, 247), (742, -1), (30, 29)])
def test_a_step_ends_where_its_x0_says(name, t, until):
    """`x0_of_step` is the inverse of `step_to`, which is DDIM in its textbook form."""
    process_, rng = PROCESSES[name], np.random.default_rng(0)
    x_t, x0 = rng.standard_normal((2, 5, 3, 3, 2)).astype(np.float32)
    at = lambda value: jnp.full(5, value, jnp.int32)
    ended = distillation.step_to(process_, x_t, x0, at(t), at(until))
    alpha, sigma = process_.schedule.alphas[t], process_.schedule.sigmas[t]
    alpha_end, sigma_end = (
        (1.0, 0.0)
        if until < 0
        else (process_.schedule.alphas[until], process_.schedule.sigmas[until])
    )
    eps_hat = (x_t.astype(np.float64) - alpha * x0) / sigma
    np.testing.assert_allclose(ended, alpha_end * x0 + sigma_end * eps_hat, atol=2e-5)
    back = distillation.x0_of_step(process_, x_t, ended, at(t), at(until))
    # Of one timestep the difference is small, and so are its digits.
    np.testing.assert_allclose(back, x0, atol=2e-2 if t - until == 1 else 1e-4)


@pytest.mark.parametrize(
    ("name", "t", "until"),
    [("v", 990, 742), ("eps", 742, 495), ("velocity", 495, 247), ("v", 247, -1)],
)
def test_more_steps_follow_the_path_better(name, t, until):
    process_, x_t = PROCESSES[name], np.linspace(-2, 2, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    errors = []
    for count in (1, 3, 24):
        edges = [jnp.full(8, round(t + (until - t) * i / count), jnp.int32) for i in range(count)]
        edges.append(jnp.full(8, until, jnp.int32))
        ended = distillation.follow(process_, posterior_mean(process_), x_t, edges)
        errors.append(np.abs(ended - exact(process_, x_t, t, until)).max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05
    # Of second order where noise is left: of eight times the steps far less than an eighth.
    if until >= 0:
        assert errors[2] < errors[1] / 8


@each_process
@pytest.mark.parametrize("visits", [1, 2, 4])
def test_a_perfect_student_ends_where_the_path_does(name, visits):
    """x0_hat of the exact end of each stride, by the solver that samples students."""
    process_ = PROCESSES[name]
    config = solvers.SolverConfig("ddim", visits, 0.0, 990, "trailing")
    table = solvers.solver_table(config, process_.schedule)
    until = distillation.until_of(table.t, 1000)
    shape = (16, 2, 2, 1)

    def perfect(x_t, t, _):
        end = jnp.asarray(until)[t]
        scale = lambda at: jnp.sqrt(
            distillation.levels(process_, at, 4)[0] ** 2 * VARIANCE
            + distillation.levels(process_, at, 4)[1] ** 2
        )
        score = (x_t - distillation.levels(process_, t, 4)[0] * MEAN) / scale(t)
        x_end = distillation.levels(process_, end, 4)[0] * MEAN + score * scale(end)
        return distillation.x0_of_step(process_, x_t, x_end, t, end)

    key = jax.random.key(0)
    made = solvers.sample(perfect, table, shape, jnp.zeros((16, 1)), key)
    noise = solvers.patch_noise(key, shape, 0, 0)
    np.testing.assert_allclose(made, exact(process_, np.asarray(noise), 990, -1), atol=2e-3)


def test_strides_begin_where_the_solver_has_its_timesteps():
    for visits in (1, 2, 4, 8):
        config = solvers.SolverConfig("ddim", visits, 0.0, 990, "trailing")
        t = solvers.solver_table(config, PROCESSES["v"].schedule).t
        parts = np.arange(visits + 1) / visits
        edges = np.asarray(CURRICULUM.edge(parts))
        np.testing.assert_array_equal(edges, [*t, distillation.CLEAN])
        until = distillation.until_of(t, 1000)
        np.testing.assert_array_equal(until[t], edges[1:])
        others = np.setdiff1d(np.arange(1000), t)
        np.testing.assert_array_equal(until[others], others)


def test_visits_are_halved_down_to_one():
    taught = lambda visits: dataclasses.replace(CURRICULUM, visits=visits).taught
    assert [taught(n) for n in (1, 2, 4, 8)] == [(1,), (2, 1), (4, 2, 1), (8, 4, 2, 1)]


def task(prediction="v", **changes):
    sizes = unet.UNetConfig(2, 8, (1, 2), 1, (1,), 1, 8, "scale_shift")
    denoiser = conditioning.Denoiser(conditioning.DenoiserConfig(sizes, 4))
    scaling = autoencoder.LatentScaling((1.0,) * 2, (0.0,) * 2)
    teaching = loss_lib.DenoisingTask(denoiser, scaling, PROCESSES[prediction], 0.1, 5.0, (8, 8, 2))
    curriculum = dataclasses.replace(CURRICULUM, **changes)
    return distillation.DistillationTask(teaching, curriculum, None)


def batch_of(task_, count):
    rng = np.random.default_rng(1)
    shapes = tasks.batch_of(task_.batch_spec(), count)
    batch = {n: rng.standard_normal(s.shape).astype(s.dtype) for n, s in shapes.items()}
    return batch | {"index": np.arange(count, dtype=np.int32)}


def noisy(params):
    """Weights that do something: the last layers of a network begin at zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    draw = lambda key, leaf: leaf + 0.1 * jax.random.normal(key, leaf.shape)
    return jax.tree.unflatten(tree, list(map(draw, keys, leaves)))


def test_a_student_begins_as_its_teacher():
    """Whatever it is told, since what tells it begins at zero."""
    task_ = task()
    batch = batch_of(task_, 3)
    teacher = noisy(task_.teaching.init(jax.random.key(0), batch)[0])
    task_ = dataclasses.replace(task_, teacher_params=teacher)
    params, extra = task_.init(jax.random.key(1), batch)
    assert extra == {"teacher": teacher}
    x_t = batch["moments"].astype(np.float32)
    t = jnp.array([10, 500, 990])
    plain = task_.teaching.denoiser.apply({"params": teacher}, x_t, t, batch["embedding"])
    assert np.abs(plain).max() > 0.1
    for until, scale in ((-1, 1.0), (5, 3.0)):
        step = conditioning.Step(jnp.full(3, until), jnp.full(3, scale))
        told = task_.student.apply({"params": params}, x_t, t, batch["embedding"], step)
        np.testing.assert_array_equal(told, plain)
    other = noisy(params)
    heard = [
        task_.student.apply({"params": other}, x_t, t, batch["embedding"], conditioning.Step(*step))
        for step in (
            (jnp.full(3, -1), jnp.ones(3)),
            (jnp.full(3, 5), jnp.ones(3)),
            (jnp.full(3, -1), jnp.full(3, 3.0)),
        )
    ]
    assert np.abs(heard[0] - heard[1]).max() > 1e-3
    assert np.abs(heard[0] - heard[2]).max() > 1e-3


@pytest.mark.parametrize("prediction", ["v", "velocity"])
def test_the_teacher_is_guided_as_images_are(prediction):
    """By each example's own scale, and where the interval says."""
    task_ = task(prediction)
    batch = batch_of(task_, 4)
    params = noisy(task_.teaching.init(jax.random.key(0), batch)[0])
    scales, t = jnp.array([1.0, 2.0, 3.5, 3.0]), jnp.array([900, 700, 401, 399])
    x_t = batch["moments"].astype(np.float32)
    found = task_._guided_teacher(params, batch["embedding"], scales)(x_t, t)
    denoise = lambda x, at, e: task_.teaching.denoiser.apply({"params": params}, x, at, e)
    for i, scale in enumerate(scales):
        config = dataclasses.replace(GUIDED, scale=float(scale))
        expected = guidance.GuidedX0(denoise, PROCESSES[prediction], config)
        one = expected(x_t[i : i + 1], t[i : i + 1], jnp.asarray(batch["embedding"][i : i + 1]))
        np.testing.assert_allclose(found[i], one[0], atol=1e-4)


@pytest.mark.parametrize("visits", [1, 2, 4])
def test_every_lesson_is_given_and_its_steps_go_down(visits):
    task_ = task(visits=visits)
    index, seen, lesson_of = np.arange(64), {}, jax.jit(task_._lesson)
    for i in range(60):
        keys = jax.random.split(jax.random.key(i))
        lesson, edges = lesson_of(*keys, index)
        edges = np.asarray(edges)
        seen.setdefault(int(lesson), set()).update(zip(edges[0], edges[-1], strict=True))
        if lesson == 0:
            assert (edges == edges[0]).all()
            assert edges.min() >= 0
            assert edges.max() <= 990
            assert len(np.unique(edges[0])) > 32
        else:
            assert (np.diff(edges, axis=0) < 0).all()
    assert seen.keys() == ({0, 1, 2} if visits > 1 else {0, 1})
    edge = lambda part: round(991 * (1 - part)) - 1
    strides = lambda n: {(edge(k / n), edge((k + 1) / n)) for k in range(n)}
    assert seen[1] == strides(visits)
    if visits > 1:
        shorter = [strides(n) for n in task_.curriculum.taught[1:]]
        assert seen[2] == set().union(*shorter)


def test_the_loss_is_that_of_each_lesson():
    """Zero where a student already does what it shall: without noise to undo a network that always
    says zero is its own teacher."""
    task_ = task("velocity")
    batch = batch_of(task_, 4)
    params, extra = task_.init(jax.random.key(0), batch)
    of_key = jax.jit(
        lambda params, key: task_.loss(params, batch, key, ema_params=params, extra=extra).loss
    )
    # All begin with a prediction of zero, so that x0_hat is x_t at every step.
    for i in range(12):
        assert of_key(params, jax.random.key(i)) == pytest.approx(0, abs=1e-6)
    losses = [float(of_key(noisy(params), jax.random.key(i))) for i in range(12)]
    assert min(losses) > 1e-4
    assert np.isfinite(losses).all()
