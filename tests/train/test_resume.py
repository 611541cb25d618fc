"""A run that was killed and one that was not end with the same bits.

This file is also the script that gets killed; `tests/resume_often.py` kills it at random places.
"""

import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import patience
import pytest

from ssldiff_jax.core import collectives, rng, tasks
from ssldiff_jax.data import loader, store
from ssldiff_jax.train import checkpoint, loop
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import optimizer as optimizer_lib
from ssldiff_jax.train import step as step_lib

NUM_STEPS, CHECKPOINT_EVERY = 12, 4
# Batches that were drawn: the last is on its way while the one before is computed with.
KILLED_AT = (3, 8, 11)
ROOT = pathlib.Path(__file__).parents[2]


class NoisyRegression(tasks.Task):
    """Moments from embeddings, with noise for every example and state beside the parameters."""

    def batch_spec(self):
        shapes = {"moments": (1, 2), "embedding": (1, 3)}
        return {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}

    def init(self, key, batch):
        shape = (batch["embedding"].shape[-1], batch["moments"].shape[-1])
        return {"kernel": jax.random.normal(key, shape), "bias": jnp.zeros(shape[1])}, jnp.zeros(2)

    def loss(self, params, batch, key, *, ema_params, extra):
        noise = rng.per_example(key, batch["index"], jax.random.normal, (2,))
        error = batch["embedding"] @ params["kernel"] + params["bias"] - batch["moments"] - noise
        seen = collectives.pmean(jnp.mean(error, axis=0))
        return tasks.LossOutput(jnp.mean(error**2), {}, 0.9 * extra + 0.1 * seen)


def write_stores(folder):
    generator = np.random.default_rng(0)
    for name, dim in (("moments", 2), ("embedding", 3)):
        writer = store.StoreWriter(folder / name, (store.Field(name, (dim,), "float32"),))
        writer.append(**{name: generator.normal(size=(20, dim))})
        writer.close()


def fit(stores, folder, num_steps=NUM_STEPS):
    optimizer = optimizer_lib.OptimizerConfig("adamw", 0.1, 2, "cosine", 0.1, (), 0.99, 1.0, 0.9)
    compute = step_lib.ComputeConfig("float32", "none", 1)
    config = loop.TrainConfig(
        num_steps, 8, optimizer, compute, 1, CHECKPOINT_EVERY, 0, "jit", profile_steps=0
    )
    batches = loader.cached_batches(
        store.Store(stores / "moments"),
        store.Store(stores / "embedding"),
        batch_size=config.batch_size,
        seed=5,
        config=loader.LoaderConfig(2, 4),
    )
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))
    return loop.fit(
        NoisyRegression(),
        batches,
        config,
        loop.Run("run", folder, folder / "checkpoints", mesh, (), 3),
    )


def fit_until_killed(stores, folder, killed_at):
    to_global, seen = mesh_lib.to_global, []
    saved = (killed_at - 2) // CHECKPOINT_EVERY * CHECKPOINT_EVERY

    def kill_later(batch, mesh):
        seen.append(batch)
        if len(seen) == killed_at:
            # A save runs in the background; it takes its name when it is whole.
            until, whole = time.monotonic() + 600, folder / "checkpoints" / str(saved)
            while saved and not whole.exists() and time.monotonic() < until:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)
        return to_global(batch, mesh)

    mesh_lib.to_global = kill_later
    fit(stores, folder)


def kill(folder, killed_at):
    """Kill a run after so many batches; returns its folder."""
    killed = folder / f"killed_{killed_at}"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, str(folder), str(killed), str(killed_at)]
    result = patience.run(command, env=environment)
    assert result.returncode == -signal.SIGKILL, result.stderr
    return killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never killed, among its stores."""
    folder = tmp_path_factory.mktemp("resume")
    write_stores(folder)
    fit(folder, folder / "whole")
    return folder / "whole"


@pytest.fixture(scope="module", params=KILLED_AT)
def runs(whole, request):
    """(folder of the whole run, folder of the killed and resumed one, its returned params)."""
    killed = kill(whole.parent, request.param)
    saved = ocp.utils.checkpoint_steps(killed / "checkpoints")
    assert max(saved, default=0) == (request.param - 2) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    return whole, killed, fit(whole.parent, killed)


def final_state(folder, num_steps=NUM_STEPS):
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        assert manager.latest_step() == num_steps
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        return manager.restore(num_steps, args=args)["state"]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_killed_run_went_on_from_its_checkpoint(runs):
    assert [line["step"] for line in lines(runs[0])] == list(range(1, 13))
    steps = [line["step"] for line in lines(runs[1])]
    killed_at = int(runs[1].name.split("_")[1])
    saved = (killed_at - 2) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    assert steps == [*range(1, killed_at - 1), *range(saved + 1, 13)]


def test_states_are_equal_to_the_bit(runs):
    whole, killed = final_state(runs[0]), final_state(runs[1])
    assert jax.tree.structure(whole) == jax.tree.structure(killed)
    assert {"params", "ema_params", "opt_state", "extra", "step", "skipped"} <= whole.keys()
    jax.tree.map(np.testing.assert_array_equal, whole, killed)
    assert np.abs(whole["extra"]).min() > 0


def test_losses_are_equal_to_the_bit(runs):
    """Also those of the steps taken twice: noise and data come from the position, not the try."""
    wanted = {line["step"]: (line["loss"], line["grad_norm"]) for line in lines(runs[0])}
    assert len(set(wanted.values())) == NUM_STEPS
    for line in lines(runs[1]):
        assert (line["loss"], line["grad_norm"]) == wanted[line["step"]]


def test_fit_returns_the_average_that_later_stages_load(runs):
    loaded = checkpoint.load_params(runs[1] / "checkpoints")
    jax.tree.map(np.testing.assert_array_equal, loaded, runs[2])
    raw = checkpoint.load_params(runs[1] / "checkpoints", ema=False)
    assert (raw["kernel"] != loaded["kernel"]).any()


def test_finished_run_is_not_trained_again(runs):
    before = lines(runs[0])
    params = fit(runs[0].parent, runs[0])
    jax.tree.map(np.testing.assert_array_equal, params, final_state(runs[0])["ema_params"])
    assert lines(runs[0]) == before


def test_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        checkpoint.load_params(tmp_path / "checkpoints")


def kill_often(count):
    """Kill `count` runs at random places; every one must end as the one that was not."""
    generator = np.random.default_rng()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_stores(folder)
        fit(folder, folder / "whole")
        wanted = final_state(folder / "whole")
        for i in range(count):
            killed_at = int(generator.integers(1, NUM_STEPS + 1))
            killed = kill(folder, killed_at)
            fit(folder, killed)
            jax.tree.map(np.testing.assert_array_equal, wanted, final_state(killed))
            print(f"{i + 1}: killed after {killed_at} batches, the same bits", flush=True)
            shutil.rmtree(killed)


if __name__ == "__main__":
    fit_until_killed(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
