import dataclasses
import functools
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.core import tasks
from ssldiff_jax.data import loader
from ssldiff_jax.train import loop, optimizer
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

OPTIMIZER = optimizer.OptimizerConfig(
    name="adamw",
    learning_rate=0.1,
    warmup_steps=2,
    decay="constant",
    weight_decay=0.3,
    groups=(),
    b2=0.99,
    clip_norm=0.5,
    ema_decay=0.3,
)


class LinearRegression(tasks.Task):
    """y ≈ x·kernel + bias, in the mean of squares."""

    def batch_spec(self):
        shapes = {"x": (1, 3), "y": (1, 2)}
        return {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}

    def init(self, key, batch):
        kernel = jax.random.normal(key, (batch["x"].shape[-1], batch["y"].shape[-1]))
        return {"kernel": kernel, "bias": jnp.ones(batch["y"].shape[-1])}, {"seen": 0.0}

    def loss(self, params, batch, key, *, ema_params, extra):
        error = batch["x"] @ params["kernel"] + params["bias"] - batch["y"]
        loss = jnp.mean(jnp.sum(error**2, axis=-1))
        metrics = {"mae": jnp.mean(jnp.abs(error))}
        return tasks.LossOutput(loss, metrics, {"seen": extra["seen"] + 1.0})


def make_batch(seed, size=6):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(size, 3)).astype(np.float32)
    y = x @ np.array([[1, 2], [3, 4], [5, 6]], np.float32) + 1
    return {"x": x, "y": y}


def start(config=OPTIMIZER, num_steps=100):
    task, tx = LinearRegression(), config.transform(num_steps)
    state = step_lib.init_state(task, tx, jax.random.key(0), make_batch(0))
    update = step_lib.Update(task, tx, config.ema_decay)
    step = functools.partial(step_lib.train_step, update=update)
    return state, jax.jit(step)


def run(state, step, batches):
    states = [state]
    for batch in batches:
        states.append(step(states[-1], batch, jax.random.key(1))[0])
    return states


def gradient(params, batch):
    """Of the mean over examples of the squared error, by hand."""
    error = batch["x"] @ params["kernel"] + params["bias"] - batch["y"]
    scale = 2 / len(error)
    return {"kernel": scale * batch["x"].T @ error, "bias": scale * error.sum(axis=0)}


def adamw_by_hand(params, batches, config, rates):
    """Loshchilov & Hutter 2019, with gradients clipped to a global norm; float64."""
    params = {name: np.asarray(p, np.float64) for name, p in params.items()}
    m, v = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    for i, (batch, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        grads = gradient(params, batch)
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        for name, g in grads.items():
            g = g * min(1, config.clip_norm / norm)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = config.b2 * v[name] + (1 - config.b2) * g**2
            update = (m[name] / (1 - 0.9**i)) / (np.sqrt(v[name] / (1 - config.b2**i)) + 1e-8)
            if params[name].ndim > 1:
                update = update + config.weight_decay * params[name]
            params[name] = params[name] - rate * update
    return params


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_five_steps_are_adamw():
    batches = [make_batch(i) for i in range(5)]
    state, step = start()
    found = run(state, step, batches)[-1]
    # Warm-up over two steps, from zero; then constant.
    wanted = adamw_by_hand(state.params, batches, OPTIMIZER, [0, 0.05, 0.1, 0.1, 0.1])
    for name, value in wanted.items():
        np.testing.assert_allclose(found.params[name], value, rtol=2e-5, atol=2e-6)
    assert int(found.step) == 5
    assert int(found.skipped) == 0


def test_cosine_decays_to_zero_over_the_planned_steps():
    config = dataclasses.replace(OPTIMIZER, decay="cosine")
    batches = [make_batch(i) for i in range(8)]
    state, step = start(config, num_steps=6)
    states = run(state, step, batches)
    cosine = [0.05 * (1 + np.cos(np.pi * i / 4)) for i in range(5)]
    wanted = adamw_by_hand(state.params, batches[:7], config, [0, 0.05, *cosine])
    np.testing.assert_allclose(states[7].params["kernel"], wanted["kernel"], rtol=2e-5)
    assert_trees_equal(states[6].params, states[7].params)  # rate 0 from step 6 on
    assert_trees_equal(states[7].params, states[8].params)


def test_small_gradients_are_not_clipped():
    config = dataclasses.replace(OPTIMIZER, clip_norm=1e9)
    state, step = start(config)
    batches = [make_batch(i) for i in range(3)]
    wanted = adamw_by_hand(state.params, batches, config, [0, 0.05, 0.1])
    found = run(state, step, batches)[-1]
    np.testing.assert_allclose(found.params["kernel"], wanted["kernel"], rtol=2e-5)


def test_weight_decay_leaves_vectors_alone():
    class NoGradient(LinearRegression):
        def loss(self, params, batch, key, *, ema_params, extra):
            return tasks.LossOutput(0.0 * jnp.sum(params["kernel"]), {}, extra)

    tx = OPTIMIZER.transform(100)
    state = step_lib.init_state(NoGradient(), tx, jax.random.key(0), make_batch(0))
    first = state
    for _ in range(3):
        update = step_lib.Update(NoGradient(), tx, 0.3)
        state, _ = step_lib.train_step(state, make_batch(0), jax.random.key(1), update=update)
    np.testing.assert_array_equal(state.params["bias"], first.params["bias"])
    shrunk = first.params["kernel"] * (1 - 0.05 * 0.3) * (1 - 0.1 * 0.3)
    np.testing.assert_allclose(state.params["kernel"], shrunk, rtol=1e-6)


def test_average_follows_its_formula():
    config = dataclasses.replace(OPTIMIZER, ema_decay=0.25)
    state, step = start(config)
    states = run(state, step, [make_batch(i) for i in range(6)])
    ema = np.asarray(state.params["kernel"], np.float64)
    decays = []
    for i, after in enumerate(states[1:]):
        decays.append(min(0.25, (1 + i) / (10 + i)))
        ema = decays[-1] * ema + (1 - decays[-1]) * np.asarray(after.params["kernel"])
        np.testing.assert_allclose(after.ema_params["kernel"], ema, rtol=1e-5)
    assert decays[0] == 0.1
    assert decays[-1] == 0.25  # both branches were taken


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_gradient_changes_nothing_but_the_counters(bad):
    state, step = start()
    before = run(state, step, [make_batch(0), make_batch(1)])[-1]
    batch = make_batch(2)
    batch["y"][3, 1] = bad
    after, metrics = step(before, batch, jax.random.key(1))
    assert not np.isfinite(metrics["loss"])
    for part in ("params", "ema_params", "opt_state", "extra"):
        assert_trees_equal(getattr(before, part), getattr(after, part))
    assert (int(after.step), int(after.skipped)) == (3, 1)
    later, _ = step(after, make_batch(3), jax.random.key(1))
    assert int(later.skipped) == 1
    assert float(later.extra["seen"]) == 3
    assert (later.params["kernel"] != after.params["kernel"]).any()


def test_step_is_a_function_of_its_arguments():
    class Noisy(LinearRegression):
        def loss(self, params, batch, key, *, ema_params, extra):
            noise = jax.random.normal(key, batch["y"].shape)
            noisy = batch | {"y": batch["y"] + noise}
            return super().loss(params, noisy, key, ema_params=ema_params, extra=extra)

    tx = OPTIMIZER.transform(100)
    state = step_lib.init_state(Noisy(), tx, jax.random.key(0), make_batch(0))
    step = functools.partial(step_lib.train_step, update=step_lib.Update(Noisy(), tx, 0.3))
    a, b, other_key = (step(state, make_batch(0), jax.random.key(k)) for k in (1, 1, 2))
    assert_trees_equal(a, b)
    assert float(other_key[1]["loss"]) != float(a[1]["loss"])
    # The same key draws other noise at another step.
    later = step(state.replace(step=state.step + 1), make_batch(0), jax.random.key(1))
    assert float(later[1]["loss"]) != float(a[1]["loss"])


def test_metrics_are_those_of_the_batch():
    state, step = start()
    batch = make_batch(4)
    _, metrics = step(state, batch, jax.random.key(1))
    params = {name: np.asarray(p, np.float64) for name, p in state.params.items()}
    error = batch["x"] @ params["kernel"] + params["bias"] - batch["y"]
    grads = gradient(params, batch)
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    assert float(metrics["loss"]) == pytest.approx(np.mean(np.sum(error**2, -1)), rel=1e-5)
    assert float(metrics["mae"]) == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)  # before clipping


def fit(tmp_path, source, *, max_skipped=2, num_steps=12, method="jit"):
    dataset = grain.MapDataset.source(source).repeat().batch(6).to_iter_dataset()
    data = loader.Batches(dataset)
    compute = step_lib.ComputeConfig("float32", "none", 1)
    config = loop.TrainConfig(
        num_steps, 6, OPTIMIZER, compute, 1, 100, max_skipped, method, profile_steps=0
    )
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))
    return loop.fit(
        LinearRegression(),
        data,
        config,
        loop.Run("test", tmp_path, tmp_path / "checkpoints", mesh, (), 0),
    )


def examples(bad=()):
    batch = make_batch(0, 24)
    return [
        {"x": batch["x"][i], "y": np.full(2, np.nan, np.float32) if i in bad else batch["y"][i]}
        for i in range(24)
    ]


def test_fit_stops_after_too_many_non_finite_updates(tmp_path):
    # One batch in four is bad: steps 2, 6 and 10.
    with pytest.raises(loop.NonFiniteError, match=r"at most 2 .* got 3 by step 10; loss=nan"):
        fit(tmp_path, examples(bad=[7]))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_fit_survives_as_many_as_allowed(tmp_path):
    params = fit(tmp_path, examples(bad=[7]), max_skipped=3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_fit_writes_what_it_promises(tmp_path):
    fit(tmp_path, examples())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert {"loss", "mae", "grad_norm", "skipped", "seconds"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "kernel" in (tmp_path / "parameters.txt").read_text()
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_batch_in_parts_is_the_batch():
    """Gradients, metrics and further state; what is frozen stays so to the last digit."""

    class Centered(LinearRegression):
        def init(self, key, batch):
            params, _ = super().init(key, batch)
            return params, {"center": jnp.full(2, 0.3), "step": 0.0, "frozen": jnp.float32(0.1)}

        def loss(self, params, batch, key, *, ema_params, extra):
            seen = {"seen": 0.0}
            output = super().loss(params, batch, key, ema_params=ema_params, extra=seen)
            center = 0.9 * extra["center"] + 0.1 * jnp.mean(batch["y"], axis=0)
            return output._replace(extra=extra | {"center": center, "step": extra["step"] + 1})

    tx = OPTIMIZER.transform(100)
    state = step_lib.init_state(Centered(), tx, jax.random.key(0), make_batch(0))
    found = []
    for count in (1, 3):
        compute = step_lib.ComputeConfig("float32", "none", count)
        update = step_lib.Update(Centered(), tx, 0.3, compute)
        found.append(step_lib.train_step(state, make_batch(1), jax.random.key(1), update=update))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)
    assert float(found[1][0].extra["step"]) == 1
    assert found[1][0].extra["frozen"] == state.extra["frozen"]


def test_bfloat16_is_computed_in_and_float32_kept():
    class Seen(LinearRegression):
        def loss(self, params, batch, key, *, ema_params, extra):
            dtypes.update(leaf.dtype.name for leaf in jax.tree.leaves((params, ema_params)))
            return super().loss(params, batch, key, ema_params=ema_params, extra=extra)

    dtypes, tx = set(), OPTIMIZER.transform(100)
    state = step_lib.init_state(Seen(), tx, jax.random.key(0), make_batch(0))
    update = step_lib.Update(Seen(), tx, 0.3, step_lib.ComputeConfig("bfloat16", "none", 1))
    states = [state]
    for i in range(3):
        states.append(
            step_lib.train_step(states[-1], make_batch(i), jax.random.key(1), update=update)[0]
        )
    assert dtypes == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(states[-1].params)} == {"float32"}
    exact = run(*start(), [make_batch(i) for i in range(3)])[-1]
    np.testing.assert_allclose(states[-1].params["kernel"], exact.params["kernel"], atol=0.02)


@pytest.mark.parametrize(
    ("name", "value", "least"), [("num_steps", -1, 0), ("log_every", 0, 1), ("batch_size", 0, 1)]
)
def test_a_training_that_cannot_be_is_refused(name, value, least):
    compute = step_lib.ComputeConfig("float32", "none", 1)
    config = loop.TrainConfig(5, 6, OPTIMIZER, compute, 1, 100, 2, "jit", profile_steps=0)
    with pytest.raises(ValueError, match=f"train.{name} must be at least {least}, got {value}"):
        dataclasses.replace(config, **{name: value})


def test_speed_is_told_beside_the_loss(tmp_path):
    fit(tmp_path, examples())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "step_seconds" not in lines[0]  # it was compiled
    last = lines[-1]
    assert last["examples_per_second"] == pytest.approx(6 / last["step_seconds"])
    assert 0 <= last["input_wait"] <= 1
    # Two products of (6, 3) by (3, 2) with their gradients, and what is elementwise.
    assert 2 * 2 * 6 * 3 * 2 < last["flops_per_second"] * last["step_seconds"] < 10_000
