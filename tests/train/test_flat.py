"""An update on vectors is optax's on arrays, and vectors hold what devices hold of arrays."""

import dataclasses
import functools

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, PartitionSpec

from ssldiff_jax.core import tasks
from ssldiff_jax.train import checkpoint, flat, named, optimizer, parallel
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

ADAMW = optimizer.OptimizerConfig("adamw", 0.03, 2, "cosine", 0.2, (), 0.98, 0.7, 0.8)
GROUPS = ("second/.* = 0.5, 3", "first/kernel = 0.1, 0")
SHAPES = {
    "first": {"kernel": (3, 4, 6), "bias": (6,)},
    "second": {"kernel": (6, 2), "scale": (2,), "table": (5, 2)},
    "quantiser": {"codebook": (7, 2)},
}


def tree(seed, shapes=None):
    source = np.random.default_rng(seed)
    shapes = SHAPES if shapes is None else shapes
    is_shape = lambda x: isinstance(x, tuple)
    new = lambda shape: source.normal(size=shape).astype(np.float32)
    return jax.tree.map(new, shapes, is_leaf=is_shape)


class Quadratic(tasks.Task):
    """A loss whose gradient is by hand: Σ (p − target)²·x over all parameters, mean over x."""

    def batch_spec(self):
        return {"x": jax.ShapeDtypeStruct((1,), jnp.float32)}

    def init(self, key, batch):
        return tree(0), {"seen": jnp.zeros(())}

    def loss(self, params, batch, key, *, ema_params, extra):
        squares = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), params, tree(1))
        loss = jnp.mean(batch["x"]) * sum(jax.tree.leaves(squares))
        return tasks.LossOutput(loss, {}, {"seen": extra["seen"] + 1.0})


class Reviving(Quadratic):
    """Its codebook's first row, and a bias, are set after each update."""

    def post_update(self, params, extra):
        codebook = params["quantiser"]["codebook"].at[0].set(extra["seen"])
        first = params["first"] | {"bias": jnp.full(6, 0.5)}
        return params | {"quantiser": {"codebook": codebook}, "first": first}


def one_device():
    return mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))


def run(storage, batches, *, config=ADAMW, task=None, accumulate=1, num_steps=9):
    """The last state, its parameters and moments as arrays."""
    task, tx, mesh = task or Quadratic(), config.transform(num_steps), one_device()
    key = jax.random.key(0)
    state, _ = parallel.born_sharded(task, tx, key, mesh, ("kernel = -1:fsdp",), storage)
    compute = step_lib.ComputeConfig("float32", "none", accumulate)
    update = step_lib.Update(task, tx, config.ema_decay, compute)
    step = jax.jit(functools.partial(step_lib.train_step, update=update))
    for batch in batches:
        state, _ = step(state, batch, key)
    return jax.tree.map(np.asarray, named.state(state))


def batches(count, bad=()):
    source = np.random.default_rng(3)
    xs = [source.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(count)]
    return [{"x": np.full(4, np.nan, np.float32) if i in bad else x} for i, x in enumerate(xs)]


def assert_close(found, wanted, atol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol), found, wanted)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("groups", [(), GROUPS])
@pytest.mark.parametrize("bad", [(), (2,)])
def test_an_update_on_vectors_is_that_on_arrays(accumulate, groups, bad):
    config = dataclasses.replace(ADAMW, groups=groups)
    of = lambda storage: run(storage, batches(6, bad), config=config, accumulate=accumulate)
    found, wanted = of("flat"), of("arrays")
    assert_close(found, wanted)
    assert int(found.skipped) == len(bad)
    assert float(found.extra["seen"]) == 6 - len(bad)


def test_an_update_on_vectors_is_optax_array_by_array():
    """Adam with decoupled decay of what is no vector, clipped by the norm over all arrays, and
    averaged."""
    found = run("flat", batches(6))
    rate = optax.join_schedules(
        [optax.linear_schedule(0, 0.03, 2), optax.cosine_decay_schedule(0.03, 7)], [2]
    )
    mask = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    tx = optax.chain(
        optax.clip_by_global_norm(0.7), optax.adamw(rate, b2=0.98, weight_decay=0.2, mask=mask)
    )

    @jax.jit
    def step(params, average, opt_state, weight, decay):
        grads = jax.tree.map(lambda p, t: weight * (p - t), params, tree(1))
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
        return params, average, opt_state

    params = average = tree(0)
    opt_state = tx.init(params)
    for i, batch in enumerate(batches(6)):
        weight, decay = 2 * batch["x"].mean(), min(0.8, (1 + i) / (10 + i))
        params, average, opt_state = step(params, average, opt_state, weight, decay)
    assert_close(found.params, jax.tree.map(np.asarray, params))
    assert_close(found.ema_params, jax.tree.map(np.asarray, average))


def test_what_a_task_changes_after_an_update_is_changed_in_vectors():
    found = run("flat", batches(4), task=Reviving())
    assert_close(found, run("arrays", batches(4), task=Reviving()))
    np.testing.assert_array_equal(found.params["first"]["bias"], np.full(6, 0.5))
    np.testing.assert_array_equal(found.params["quantiser"]["codebook"][0], [4, 4])


@given(
    fsdp=st.sampled_from([1, 2, 3, 4]),
    shapes=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=5
    ),
    dimension=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_a_device_holds_its_part_of_every_array(fsdp, shapes, dimension):
    grow = lambda shape: tuple(n * 12 if d == dimension else n for d, n in enumerate(shape))
    params = tree(5, {f"kernel{i}": grow(shape) for i, shape in enumerate(shapes)})
    mesh = AbstractMesh((1, fsdp, 1), mesh_lib.AXES)
    shardings = mesh_lib.tree_shardings(params, mesh, (f"kernel = {dimension}:fsdp",))
    layout = flat.Layout.of(params, shardings)
    stored = layout.flatten(params)
    (vector,) = stored.vectors.values()
    for device, held in enumerate(np.split(vector, fsdp)):
        parts = [np.split(x, fsdp, dimension)[device].ravel() for x in params.values()]
        count = sum(part.size for part in parts)
        np.testing.assert_array_equal(held[:count], np.concatenate(parts))
        assert not held[count:].any()
        assert fsdp == 1 or held.size % 1024 == 0
    jax.tree.map(np.testing.assert_array_equal, flat.leaves(stored), params)


def layout_over(sizes, rules):
    mesh = AbstractMesh(sizes, mesh_lib.AXES)
    params = tree(0)
    return params, flat.Layout.of(params, mesh_lib.tree_shardings(params, mesh, rules))


def test_what_is_split_over_model_and_codebooks_stay_arrays():
    rules = ("first/kernel = -1:model", "kernel = -2:fsdp")
    params, layout = layout_over((1, 2, 2), rules)
    stored = layout.flatten(params).vectors
    shapes = {name: vector.shape for name, vector in stored.items()}
    assert shapes == {
        "first/kernel": (3, 4, 6),
        "quantiser/codebook": (7, 2),
        "float32/matrices/fsdp": (2 * 1024,),
        "float32/matrices/": (10,),
        "float32/vectors/": (8,),
    }
    specs = {name: sharding.spec for name, sharding in
             layout.shardings(AbstractMesh((1, 2, 2), mesh_lib.AXES)).vectors.items()}  # fmt: skip
    assert specs["first/kernel"] == PartitionSpec(None, None, "model")
    assert specs["float32/matrices/fsdp"] == PartitionSpec("fsdp")
    assert specs["float32/matrices/"] in (PartitionSpec(), PartitionSpec(None))
    # An axis of one device splits nothing.
    assert set(layout_over((1, 1, 1), rules)[1].flatten(params).vectors) == {
        "float32/matrices/", "float32/vectors/", "quantiser/codebook",
    }  # fmt: skip


def test_one_number_for_each_array_multiplies_its_elements():
    params, layout = layout_over((1, 2, 1), ("kernel = -1:fsdp",))
    numbers = jax.tree.unflatten(layout.treedef, [float(i + 2) for i in range(6)])
    spread = layout.spread(numbers).vectors
    scaled = flat.Flat(
        {name: np.asarray(x * spread[name]) for name, x in layout.flatten(params).vectors.items()},
        layout,
    )
    wanted = jax.tree.map(lambda x, number: x * number, params, numbers)
    jax.tree.map(np.testing.assert_array_equal, flat.leaves(scaled), wanted)
    ones = jax.tree.map(lambda _: 1.0, params)
    assert set(layout.spread(ones).vectors.values()) == {1.0}


def born(storage):
    tx = ADAMW.transform(9)
    task, key = Quadratic(), jax.random.key(0)
    return parallel.born_sharded(task, tx, key, one_device(), ("kernel = -1:fsdp",), storage)[0]


def random_state(storage):
    """A state with other numbers everywhere."""
    source = np.random.default_rng(7)
    fill = lambda x: jnp.asarray(source.integers(1, 100, x.shape), x.dtype)
    arrays = jax.tree.map(fill, born("arrays"))
    return named.stored_like(born(storage), arrays) if storage == "flat" else arrays


@pytest.mark.parametrize("saved", ["arrays", "flat"])
@pytest.mark.parametrize("restored", ["arrays", "flat"])
def test_a_checkpoint_is_the_same_however_the_state_is_held(tmp_path, saved, restored):
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path))
    checkpoints.save(4, random_state(saved))
    checkpoints.close()
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path))
    found = checkpoints.restore(born(restored))
    checkpoints.close()
    assert flat.is_flat(found.params) == (restored == "flat")
    wanted = jax.tree.map(np.asarray, random_state("arrays"))
    jax.tree.map(np.testing.assert_array_equal, named.state(found), wanted)
    # On disk: names of arrays, for whatever reads them.
    with ocp.StandardCheckpointer() as reader:
        on_disk = reader.restore(tmp_path / "4" / "state")
    kernel, moments = on_disk["params"]["first"]["kernel"], on_disk["opt_state"][1]["mu"]
    np.testing.assert_array_equal(kernel, wanted.params["first"]["kernel"])
    wanted_moments = wanted.opt_state[1].mu
    np.testing.assert_array_equal(moments["second"]["table"], wanted_moments["second"]["table"])
    loaded = checkpoint.load_params(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, loaded, wanted.ema_params)


def test_given_parameters_are_started_from_and_the_rest_is_random():
    start = {"second": tree(9)["second"]}
    found = named.state(parallel.start_from(start, born("flat")))
    for part in (found.params, found.ema_params):
        jax.tree.map(np.testing.assert_array_equal, part, tree(0) | start)


@pytest.mark.parametrize(("remat", "lowerings"), [("none", 1), ("blocks", 2)])
def test_a_step_is_lowered_once_where_nothing_is_computed_twice(remat, lowerings):
    """What counts its FLOPs is the program that is compiled."""
    tx, mesh, key = ADAMW.transform(9), one_device(), jax.random.key(0)
    task, rules = Quadratic(), ("kernel = -1:fsdp",)
    state, shardings = parallel.born_sharded(task, tx, key, mesh, rules, "flat")
    compute = step_lib.ComputeConfig("float32", remat, 1)
    update = step_lib.Update(task, tx, ADAMW.ema_decay, compute)
    step = parallel.compile_step(update, "jit", shardings, mesh)
    (batch,) = batches(1)
    batch = mesh_lib.to_global(batch, mesh)
    assert step.flops is None
    with compilations.counted() as counts:
        state, _ = step(state, batch, key)
        step(state, batch, key)
    assert (counts.lowerings, counts.programs) == (lowerings, 1)
    # Some operations an element of the 116 parameters, as many as without recomputation.
    assert 116 * 10 < step.flops < 116 * 40


def test_optimisers_that_look_at_rows_and_columns_keep_arrays_and_so_do_tpus():
    for platform, of_adamw in (("cpu", "flat"), ("gpu", "flat"), ("tpu", "arrays")):
        storage = {
            name: dataclasses.replace(ADAMW, name=name).storage(platform)
            for name in ("adamw", "adafactor", "muon")
        }
        assert storage == {"adamw": of_adamw, "adafactor": "arrays", "muon": "arrays"}
