"""Two ways to run the pure step on many devices: `jit` over a mesh, and `pmap`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from ssldiff_jax.core import arrays, blocks, platform, tasks
from ssldiff_jax.train import flat, initial, named
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

_LANES = 128  # of a TPU's tile

Storage = Literal["flat", "arrays"]
"""How a state holds parameters: in a few vectors, for optimisers that do the same to every element,
or array by array."""


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """The shapes of a state, and where each lies on a mesh."""

    state: step_lib.TrainState
    shardings: step_lib.TrainState

    @classmethod
    def of(
        cls,
        named_state: step_lib.TrainState,
        tx: optax.GradientTransformation,
        mesh: Mesh | AbstractMesh,
        rules: tuple[str, ...],
        storage: Storage,
    ) -> "Blueprint":
        """For the shapes of a state whose parameters are arrays.

        Raises ValueError for a rule that names nothing.
        """
        shardings = mesh_lib.tree_shardings(named_state, mesh, rules)
        if storage == "arrays":
            return cls(named_state, shardings)
        layout = flat.Layout.of(named_state.params, shardings.params)
        params = jax.eval_shape(layout.flatten, named_state.params)
        opt_state = jax.eval_shape(tx.init, params)
        place = lambda x: layout.shardings(mesh) if flat.is_flat(x) else mesh_lib.replicated(mesh)
        where = {
            "params": layout.shardings(mesh),
            "ema_params": layout.shardings(mesh),
            "opt_state": jax.tree.map(place, opt_state, is_leaf=flat.is_flat),
        }
        state = named_state.replace(params=params, ema_params=params, opt_state=opt_state)
        return cls(state, shardings.replace(**where))


def born_sharded(
    task: tasks.Task,
    tx: optax.GradientTransformation,
    key: arrays.Key,
    mesh: Mesh,
    rules: tuple[str, ...],
    storage: Storage,
) -> tuple[step_lib.TrainState, Any]:
    """The first state on the devices it lives on, and its shardings.

    Every process makes the parameters, and puts there what its devices hold.
    """
    batch = {name: np.zeros(one.shape, one.dtype) for name, one in task.batch_spec().items()}
    params, extra = initial.evaluate(task.init, key, batch)
    first = functools.partial(step_lib.first_state, tx=tx)
    blueprint = Blueprint.of(jax.eval_shape(first, params, extra), tx, mesh, rules, storage)
    where = blueprint.shardings
    params = flat.like(blueprint.state.params, params)
    # Copies: the step gives its buffers away, and no two leaves may share one.
    params, extra = (_copied(x) for x in _put((params, extra), (where.params, where.extra)))
    step, skipped = _put((np.zeros((), np.int32),) * 2, (where.step, where.skipped))
    opt_state = jax.jit(tx.init, out_shardings=where.opt_state)(params)
    state = step_lib.TrainState(step, params, _copied(params), opt_state, extra, skipped)
    return state, where


def _put(tree: Any, shardings: Any) -> Any:
    """The same arrays of every process as global ones."""
    put = lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])
    return jax.tree.map(put, tree, shardings)


def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def start_from(start: Mapping[str, Any], state: step_lib.TrainState) -> step_lib.TrainState:
    """The first state with given parameters, where they are given, and their averages alike."""
    params = named.put_like(state.params, dict(named.arrays(state.params)) | dict(start))
    return state.replace(params=params, ema_params=_copied(params))


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes on a device of the state, and of what a step takes beside it."""

    state: int
    beside: int


class CompiledStep:
    """A step that is compiled for the first batch it sees.

    `flops` are those of the model in one step over all devices, without what is computed twice to
    save memory; None until then, and under pmap.
    """

    def __init__(self, step: step_lib.StepFn, count_flops: Callable[..., float | None] | None):
        self._step, self._count_flops = step, count_flops
        self._compiled = None if count_flops is not None else step
        self.flops: float | None = None

    def __call__(self, state: step_lib.TrainState, batch: Mapping[str, Any], key: arrays.Key):
        """As `train_step`."""
        if self._compiled is None:
            lowered = self._step.lower(state, batch, key)
            self.flops = self._count_flops(lowered, *jax.tree.map(_shape, (state, batch, key)))
            self._compiled = lowered.compile()
        return self._compiled(state, batch, key)

    @property
    def memory(self) -> StepMemory | None:
        """What the compiler says that a step takes; None before it is compiled, and under pmap."""
        analysis = getattr(self._compiled, "memory_analysis", lambda: None)()
        if analysis is None:
            return None
        return StepMemory(analysis.alias_size_in_bytes, analysis.temp_size_in_bytes)


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
    count_flops = functools.partial(_model_flops, update, mesh)
    return CompiledStep(jit_step(update, shardings, mesh), count_flops)


def _model_flops(
    update: step_lib.Update, mesh: Mesh, lowered: Any, state: Any, batch: Any, key: Any
) -> float | None:
    """Those of a step over all devices, from its lowered program where that does all once."""
    compute, devices = update.compute, mesh.shape
    loops = compute.accumulate > 1 or blocks.are_in(flat.shapes(state.params))
    in_a_loop = loops and not _is_unrolled(mesh)
    if compute.remat != "none" or in_a_loop or devices["model"] > 1:
        # Lowered again, as if one device did it all at once: what is computed twice would count
        # twice, and the body of a loop once.
        compute = dataclasses.replace(compute, remat="none", accumulate=1)
        alone = dataclasses.replace(update, compute=compute)
        return _flops(functools.partial(step_lib.train_step, update=alone), state, batch, key)
    own = (lowered.cost_analysis() or {}).get("flops")
    shares = devices["data"] * devices["fsdp"]
    if own is None or shares == 1:
        return own
    # The program of one device of many has the gradient of its share, but the update as a whole.
    apply = functools.partial(step_lib.apply_gradient, update=update)
    loss = {"loss": jax.ShapeDtypeStruct((), np.float32)}
    of_update = _flops(apply, state, state.params, loss, state.extra)
    return shares * (own - of_update) + of_update


def _flops(function: Callable[..., Any], *shapes: Any) -> float | None:
    with blocks.written_out():
        lowered = jax.jit(function).lower(*shapes)
    return (lowered.cost_analysis() or {}).get("flops")


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
        compiler_options=platform.compiler_options(),
    )


def on_mesh(shardings: Any, mesh: Mesh) -> step_lib.Placement:
    """Devices along data and fsdp share the batch and gather what is split over these; what is
    split over model stays so, and the compiler sees to it."""
    unroll = _is_unrolled(mesh)
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


def _is_unrolled(mesh: Mesh) -> bool:
    """Whether parts of an accumulated gradient are written out."""
    return mesh_lib.platform(mesh) == "cpu"


def _gather(param: jax.Array, spec: PartitionSpec) -> jax.Array:
    for dimension, axis in enumerate(spec):
        if axis is not None:
            # The compiler would move the cast to the other side, and send twice the bytes.
            param = jax.lax.optimization_barrier(param)
            param = jax.lax.all_gather(param, axis, axis=dimension, tiled=True)
    return param


def _scatter(grad: jax.Array, spec: PartitionSpec, axes: tuple[str, ...]) -> jax.Array:
    count, is_vector = jax.lax.axis_size(axes), grad.ndim == 1
    split = [axis for axis in spec if axis is not None]
    if is_vector and split and grad.size % (_LANES * jax.lax.axis_size(split[0])) == 0:
        # A TPU scatters rows of its tiles, and of a vector sends all to all.
        grad = grad.reshape(-1, _LANES)
    for dimension, axis in enumerate(spec):
        if axis is not None:
            grad = jax.lax.psum_scatter(grad, axis, scatter_dimension=dimension, tiled=True)
    rest = tuple(axis for axis in axes if axis not in spec)
    mean = (jax.lax.psum(grad, rest) if rest else grad) / count
    return mean.reshape(-1) if is_vector else mean


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
