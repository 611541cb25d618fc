"""Slow storage makes a training slower, and nothing else."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import test_resume

from ssldiff_jax.data import store
from ssldiff_jax.train import checkpoint

HOURS = 3 * 3600.0


@pytest.fixture
def writes_take_hours(monkeypatch):
    """As seen by whoever waits for them with a limit."""
    result = ocp.future.ChainedFuture.result

    def later(future, timeout=None):
        if timeout is not None and timeout < HOURS:
            raise TimeoutError(f"{timeout} s are over")
        return result(future, timeout)

    monkeypatch.setattr(ocp.future.ChainedFuture, "result", later)


def test_a_training_waits_for_a_save_of_hours(tmp_path, writes_take_hours):
    test_resume.write_stores(tmp_path)
    test_resume.fit(tmp_path, tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [8, 12]


def test_a_canvas_waits_for_a_save_of_hours(tmp_path, writes_take_hours):
    canvas = {"x0": jnp.arange(64.0).reshape(8, 8)}
    saves = checkpoint.CanvasCheckpoints(tmp_path / "canvas", 1 << 20)
    saves.save(3, canvas, {"step": 3, "chunk": 1})
    assert saves.latest == 3
    restored, place = saves.restore(canvas)
    np.testing.assert_array_equal(restored["x0"], canvas["x0"])
    assert place == {"step": 3, "chunk": 1}
    saves.close()


def test_reads_that_take_any_time_change_no_bit(tmp_path, monkeypatch):
    """Those of one thread are overtaken by those of another."""
    test_resume.write_stores(tmp_path)
    test_resume.fit(tmp_path, tmp_path / "fast")
    read, random = store.Store.batch, np.random.default_rng(0)

    def slow(stored, numbers):
        time.sleep(random.exponential(0.05))
        return read(stored, numbers)

    monkeypatch.setattr(store.Store, "batch", slow)
    test_resume.fit(tmp_path, tmp_path / "slow")
    states = [test_resume.final_state(tmp_path / name) for name in ("fast", "slow")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    losses = [[line["loss"] for line in test_resume.lines(tmp_path / n)] for n in ("fast", "slow")]
    assert losses[0] == losses[1]
