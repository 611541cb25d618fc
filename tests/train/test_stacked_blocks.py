"""Blocks whose arrays lie together are trained as blocks that lie apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.core import blocks, platform, schema, tasks
from ssldiff_jax.runs import programs, training_tasks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import optimizer
from ssldiff_jax.train import step as step_lib

ADAMW = optimizer.OptimizerConfig("adamw", 0.1, 1, "constant", 0.5, (), 0.99, 1e9, 0.9)
MUON = dataclasses.replace(ADAMW, name="muon")
DEPTH = 3


def block(seed):
    normal = np.random.default_rng(seed).normal
    return {"kernel": jnp.asarray(normal(size=(4, 6))), "bias": jnp.asarray(normal(size=6))}


def together(first):
    return {
        blocks.STACKED: jax.tree.map(
            lambda *x: jnp.stack(x), *map(block, range(first, first + DEPTH))
        )
    }


def apart(first):
    return {str(i): block(first + i) for i in range(DEPTH)}


@pytest.mark.parametrize("config", [ADAMW, MUON], ids=["adamw", "muon"])
def test_an_optimiser_moves_each_as_if_it_were_alone(config):
    updates = []
    for tree in (together, apart):
        tx, params = config.transform(100), tree(0)
        state = tx.init(params)
        for first in (10, 20):
            change, state = tx.update(tree(first), state, params)
        updates.append(change)
    for i in range(DEPTH):
        for name, update in updates[0][blocks.STACKED].items():
            np.testing.assert_allclose(update[i], updates[1][str(i)][name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def config():
    values = small_configs.values_for("denoiser", denoiser__network="dit")
    return schema.build(run_config.RunConfig, values)


def test_a_loops_work_is_counted_as_often_as_it_goes_round(config):
    mesh = mesh_lib.make_mesh(config.mesh)

    def flops():
        return programs.flops_of_one(programs.of_training("denoiser", config, mesh, 8))

    here = flops()
    with platform.compile_for("tpu"):
        elsewhere = flops()
    # Their forms of attention differ in what is no product.
    assert elsewhere == pytest.approx(here, rel=0.02)


@pytest.fixture(scope="module")
def lowered(config):
    """Lowers the gradient of a denoiser as for accelerators, by what is kept and the depth."""

    def lower(remat, depth=None):
        dit = config.denoiser.dit
        shape = dataclasses.replace(dit.shape, depth=depth or dit.shape.depth)
        denoiser = dataclasses.replace(config.denoiser, dit=dataclasses.replace(dit, shape=shape))
        deeper = dataclasses.replace(config, denoiser=denoiser)
        task = training_tasks.training_task("denoiser", deeper)
        normal = np.random.default_rng(0).normal
        params = jax.tree.map(
            lambda x: 0.2 * normal(size=x.shape).astype(np.float32),
            programs.state("denoiser", deeper).params,
        )
        batch = {
            name: normal(size=one.shape).astype(one.dtype)
            for name, one in tasks.batch_of(task.batch_spec(), 4).items()
        } | {"index": np.arange(4, dtype=np.int32)}
        compute = step_lib.ComputeConfig("float32", remat, 1)
        args = (params, params, {}, batch, jax.random.key(1))
        with platform.compile_for("tpu"):
            update = step_lib.Update(task, None, 0.0, compute)
            return jax.jit(step_lib.gradient_alone(update)).lower(*args), args

    return lower


@pytest.mark.parametrize("remat", ["products", "blocks"])
def test_what_is_computed_twice_is_the_same_in_a_loop(lowered, remat):
    def gradient(remat):
        program, args = lowered(remat)
        return program.compile()(*args)[0]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                 gradient(remat), gradient("none"))  # fmt: skip


def test_a_loop_holds_what_one_block_computes_and_what_each_gives(lowered, config):
    """A block more costs its output where blocks are kept, and all that it computes where nothing
    is computed twice; its parameters' gradients and copies are in both."""

    def memory(remat, depth):
        return lowered(remat, depth)[0].compile().memory_analysis().temp_size_in_bytes

    each = {name: (memory(name, 12) - memory(name, 4)) / 8 for name in ("none", "blocks")}
    shape = config.denoiser.dit.shape
    side = lowered("none")[1][3]["moments"].shape[1] // config.denoiser.dit.patch
    output = 4 * side**2 * shape.width * 4  # examples, patches, numbers, bytes
    params = 4 * 14 * shape.width**2
    assert each["blocks"] <= 3 * output + 3 * params
    assert each["none"] >= 3 * each["blocks"]
