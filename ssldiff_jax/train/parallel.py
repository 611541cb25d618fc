"""Two ways to run the pure step on many devices: `jit` over a mesh, and `pmap`."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from ssldiff_jax.core import arrays, tasks
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

_UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def born_sharded(
    task: tasks.Task,
    tx: optax.GradientTransformation,
    key: arrays.Key,
    mesh: Mesh,
    rules: tuple[str, ...],
) -> tuple[step_lib.TrainState, Any]:
    """The first state, initialised on the devices it lives on, and its shardings.

    What is the same on all of them is initialised once and copied.
    """
    # It runs once: on CPU, where XLA compiles every random initialiser separately, optimising it
    # costs far more.
    options = _UNOPTIMISED if jax.default_backend() == "cpu" else None
    batch = {name: np.zeros(one.shape, one.dtype) for name, one in task.batch_spec().items()}
    init = functools.partial(step_lib.init_state, task, tx)
    shardings = mesh_lib.tree_shardings(jax.eval_shape(init, key, batch), mesh, rules)
    if all(s.is_fully_replicated for s in jax.tree.leaves(shardings)) and jax.process_count() == 1:
        state = jax.jit(init, compiler_options=options)(key, batch)
        return jax.device_put(state, shardings), shardings
    init = jax.jit(init, out_shardings=shardings, compiler_options=options)
    return init(key, batch), shardings


def start_from(
    start: Mapping[str, Any], state: step_lib.TrainState, shardings: Any
) -> step_lib.TrainState:
    """The first state with given parameters, where they are given, and their averages alike."""
    params = jax.device_put(dict(state.params) | dict(start), shardings.params)
    # A copy: the step gives its buffers away, and no two leaves may share one.
    averaged = jax.device_put(jax.tree.map(jnp.copy, params), shardings.ema_params)
    return state.replace(params=params, ema_params=averaged)


class CompiledStep:
    """A step that is compiled for the first batch it sees.

    `flops` are those of the model in one step over all devices, without what is computed twice to
    save memory; None until then, and under pmap.
    """

    def __init__(self, step: step_lib.StepFn, plain: step_lib.StepFn | None):
        self._step, self._plain = step, plain
        self._compiled = None if plain is not None else step
        self.flops: float | None = None

    def __call__(self, state: step_lib.TrainState, batch: Mapping[str, Any], key: arrays.Key):
        """As `train_step`."""
        if self._compiled is None:
            counted = self._plain.lower(*jax.tree.map(_shape, (state, batch, key)))
            self.flops = (counted.cost_analysis() or {}).get("flops")
            self._compiled = self._step.lower(state, batch, key).compile()
        return self._compiled(state, batch, key)


def compile_step(
    update: step_lib.Update, method: Literal["jit", "pmap"], shardings: Any, mesh: Mesh
) -> CompiledStep:
    """The step of a run."""
    if method == "pmap":
        if (
            jax.process_count() > 1
            or mesh.size != jax.local_device_count()
            or (mesh.shape["model"] > 1)
        ):
            raise ValueError(
                "train.method=pmap must have one process and all of its devices along data and "
                f"fsdp, got {jax.process_count()} processes and a mesh of {dict(mesh.shape)}"
            )
        return CompiledStep(pmap_step(update), None)
    # Counted as if one device did it all at once: a program of many reports the work of one, and a
    # loop's body once.
    compute = dataclasses.replace(update.compute, remat="none", accumulate=1)
    alone = dataclasses.replace(update, compute=compute)
    plain = jax.jit(functools.partial(step_lib.train_step, update=alone))
    return CompiledStep(jit_step(update, shardings, mesh), plain)


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def jit_step(update: step_lib.Update, shardings: Any, mesh: Mesh) -> Any:
    """The jitted step on a mesh: state as `shardings` say, batch split, metrics replicated."""
    batch, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
    placement = on_mesh(shardings.params, mesh)
    return jax.jit(
        functools.partial(step_lib.train_step, update=update, placement=placement),
        in_shardings=(shardings, batch, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )


def on_mesh(shardings: Any, mesh: Mesh) -> step_lib.Placement:
    """Devices along data and fsdp share the batch and gather what is split over these; what is
    split over model stays so, and the compiler sees to it."""
    unroll = mesh.devices.flat[0].platform == "cpu"
    axes = tuple(axis for axis in mesh_lib.BATCH[0] if mesh.shape[axis] > 1)
    if not axes:
        return step_lib.Placement(unroll=unroll)
    own = lambda spec: PartitionSpec(*(axis if axis in axes else None for axis in spec))
    specs = jax.tree.map(lambda s: own(s.spec), shardings)

    def spread(function):
        whole = PartitionSpec()
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(specs, specs, whole, PartitionSpec(axes), whole),
            out_specs=(specs, whole, whole),
            axis_names=set(axes),
            check_vma=False,
        )

    def gather(params: Any) -> Any:
        return jax.tree.map(_gather, params, specs)

    def scatter(grads: Any) -> Any:
        return jax.tree.map(lambda grad, spec: _scatter(grad, spec, axes), grads, specs)

    return step_lib.Placement(spread, gather, scatter, axes, unroll)


def _gather(param: jax.Array, spec: PartitionSpec) -> jax.Array:
    for dimension, axis in enumerate(spec):
        if axis is not None:
            # The compiler would move the cast to the other side, and send twice the bytes.
            param = jax.lax.optimization_barrier(param)
            param = jax.lax.all_gather(param, axis, axis=dimension, tiled=True)
    return param


def _scatter(grad: jax.Array, spec: PartitionSpec, axes: tuple[str, ...]) -> jax.Array:
    count = jax.lax.axis_size(axes)
    for dimension, axis in enumerate(spec):
        if axis is not None:
            grad = jax.lax.psum_scatter(grad, axis, scatter_dimension=dimension, tiled=True)
    rest = tuple(axis for axis in axes if axis not in spec)
    return (jax.lax.psum(grad, rest) if rest else grad) / count


def pmap_step(update: step_lib.Update) -> step_lib.StepFn:
    """The step on all local devices.

    State and metrics keep their unreplicated shapes outside.
    """
    devices, axes = jax.local_device_count(), ("batch",)
    placement = step_lib.Placement(
        scatter=functools.partial(_mean_in_one, axes=axes), axes=axes,
        unroll=jax.default_backend() == "cpu",
    )  # fmt: skip
    step = functools.partial(step_lib.train_step, update=update, placement=placement)
    mapped = jax.pmap(step, axis_name="batch", in_axes=(None, 0, None), out_axes=None)

    def run(state, batch, key):
        split = lambda x: np.reshape(x, (devices, -1, *np.shape(x)[1:]))
        return mapped(state, jax.tree.map(split, dict(batch)), key)

    return run


def _mean_in_one(tree: Any, axes: tuple[str, ...]) -> Any:
    """The mean of a tree over devices, in one collective.

    XLA's CPU runtime holds a thread for each collective that waits: many at once can starve it.
    """
    flat, restore = jax.flatten_util.ravel_pytree(tree)
    return restore(jax.lax.pmean(flat, axes))
