"""What is seen of a training while it runs: when, in which files, and what happens to a training
whose looks or boards fail."""

import json
import logging
import math

import event_files
import jax
import numpy as np
import pytest

from ssldiff_jax.core import tasks
from ssldiff_jax.data import loader, store
from ssldiff_jax.train import boards, looks, loop
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import optimizer as optimizer_lib
from ssldiff_jax.train import step as step_lib

RATE, WARMUP, STEPS = 0.1, 4, 20
PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


class Line(tasks.Task):
    """Fit y = a·x by squares."""

    def batch_spec(self):
        one = jax.ShapeDtypeStruct((1, 2), np.float32)
        return {"x": one, "y": one}

    def init(self, key, batch):
        return {"a": jax.numpy.zeros(2)}, {"seen": jax.numpy.zeros(())}

    def loss(self, params, batch, key, *, ema_params, extra):
        error = ((params["a"] * batch["x"] - batch["y"]) ** 2).sum(-1)
        return tasks.LossOutput(error.mean(), {}, {"seen": extra["seen"] + 1})


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(16, 2)).astype(np.float32)
    for name, values in (("x", x), ("y", 3 * x)):
        writer = store.StoreWriter(tmp_path / name, (store.Field(name, (2,), "float32"),))
        writer.append(**{name: values})
        writer.close()
    return loader.cached_batches(
        *(store.Store(tmp_path / name) for name in ("x", "y")),
        batch_size=8, seed=0, config=loader.LoaderConfig(1, 2),
    )  # fmt: skip


def fit(data, folder, look, *, num_steps=STEPS, count=4, open_boards=tuple):
    decay = optimizer_lib.OptimizerConfig("adamw", RATE, WARMUP, "cosine", 0.0, (), 0.99, 1.0, 0.9)
    compute = step_lib.ComputeConfig("float32", "none", 1)
    config = loop.TrainConfig(num_steps, 8, decay, compute, 2, 5, 0, "jit", profile_steps=0)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(1, 1, 1, ()), jax.devices()[:1])
    run = loop.Run(
        "line", folder, folder / "checkpoints", mesh, (), 0, looks=count, open_boards=open_boards
    )
    return loop.fit(Line(), data, config, run, look=look)


def held_out():
    x = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    return {"x": x, "y": 3 * x}


def test_looks_are_spread_over_the_training_and_are_read_back(data, tmp_path):
    loss, seen = looks.held_out_loss(Line(), held_out(), "float32"), []

    def look(params, extra):
        seen.append(np.asarray(params["a"]))
        return looks.Seen({"held_out_loss": loss(params, extra)}, {"squares": PICTURE})

    params = fit(data, tmp_path, look)
    scalars, pictures = event_files.read(tmp_path / "tensorboard")
    # Every second step is logged; parts of the training end after steps 5, 10, 15 and 20.
    assert list(pictures["squares"]) == list(scalars["held_out_loss"]) == [6, 10, 16, 20]
    for picture in pictures["squares"].values():
        np.testing.assert_array_equal(picture, PICTURE)
    batch = held_out()
    wanted = [(((a - 3) * batch["x"]) ** 2).sum(-1).mean() for a in seen]
    assert list(scalars["held_out_loss"].values()) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_array_equal(seen[-1], params["a"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [6, 10, 16, 20]
    assert all(line["look_seconds"] > 0 for line in lines if "held_out_loss" in line)


def test_the_learning_rate_is_the_one_of_each_update(data, tmp_path):
    fit(data, tmp_path, None)
    scalars, pictures = event_files.read(tmp_path / "tensorboard")
    assert pictures == {}

    def rate(updates):
        if updates < WARMUP:
            return RATE * updates / WARMUP
        return RATE * (1 + math.cos(math.pi * (updates - WARMUP) / (STEPS - WARMUP))) / 2

    wanted = {step: rate(step - 1) for step in range(2, STEPS + 1, 2)}
    assert scalars["learning_rate"] == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    assert set(scalars) >= {"loss", "grad_norm"}


def test_none_are_due_where_none_are_asked_for(data, tmp_path):
    def look(params, extra):
        raise AssertionError

    fit(data, tmp_path, look, count=0)
    assert "held_out_loss" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_look_changes_no_training_and_one_that_fails_is_told_once(data, tmp_path, caplog):
    def look(params, extra):
        raise ValueError("no such\npatch")

    with caplog.at_level(logging.WARNING):
        watched = fit(data, tmp_path / "watched", look)
    alone = fit(data, tmp_path / "alone", None)
    np.testing.assert_array_equal(watched["a"], alone["a"])
    (line,) = caplog.messages
    assert line == "held-out examples are looked at no more: ValueError: no such patch"


class Full:
    """A board whose disk is full after some figures."""

    def __init__(self, room):
        self.room, self.steps, self.is_closed = room, [], False

    def write(self, step, scalars):
        if len(self.steps) == self.room:
            raise OSError("no space left")
        self.steps.append(step)

    def show(self, step, name, picture):
        assert step in self.steps

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize("room", [2, 100])
def test_a_board_that_fails_is_told_once_and_left_alone(data, tmp_path, caplog, room):
    board = Full(room)
    look = lambda params, extra: looks.Seen({}, {"squares": PICTURE})
    with caplog.at_level(logging.WARNING):
        fit(data, tmp_path, look, open_boards=lambda: [boards.Guarded("full", lambda: board)])
    logged = list(range(2, STEPS + 1, 2))
    assert board.steps == logged[:room]
    fails = room < len(logged)
    assert board.is_closed != fails
    assert (
        caplog.messages
        == ["full gets nothing more of this training, which goes on: OSError: no space left"]
        * fails
    )


def test_a_board_that_cannot_be_opened_is_told_and_the_training_goes_on(data, tmp_path, caplog):
    def refuse():
        raise PermissionError("not yours")

    with caplog.at_level(logging.WARNING):
        fit(data, tmp_path, None, open_boards=lambda: [boards.Guarded("closed", refuse)])
    assert caplog.messages == [
        "closed gets nothing more of this training, which goes on: PermissionError: not yours"
    ]
