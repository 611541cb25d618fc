"""Trainings with shapes in place of arrays: their states and compiled steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from ssldiff_jax.core import blocks, tasks
from ssldiff_jax.runs import training_tasks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import loop, parallel, scaling
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

COUNTED = 8
"""Examples whose FLOPs are counted."""


@dataclasses.dataclass(frozen=True)
class AbstractCall:
    """A jitted function and the shapes of its arguments.

    Attributes:
        num_params: of the model, 0 for what trains nothing.
        batch_size: examples or windows of one call, over all devices.
        flops: those of the model for one of them, counted on a function and its shapes.
        of_device: what one device computes, without optimiser and recomputation: a function and
            its shapes.
    """

    function: Any
    args: tuple[Any, ...]
    num_params: int
    batch_size: int
    flops: tuple[Callable[..., Any], tuple[Any, ...]]
    of_device: tuple[Callable[..., Any], tuple[Any, ...]]


def of_training(
    name: str, config: run_config.RunConfig, mesh: Mesh, batch_size: int
) -> AbstractCall:
    """The step of a stage that trains; `batch_size` 0 is the config's.

    Raises ValueError for a batch that the mesh does not divide.
    """
    task, train = training_tasks.training_task(name, config), getattr(config, name).train
    if batch_size:
        train = dataclasses.replace(train, batch_size=batch_size)
    mesh_lib.require_divides(train.batch_size, mesh, train.compute.accumulate)
    batch = lambda count: tasks.batch_of(task.batch_spec(), count)
    state, key = state_of(task, train), jax.eval_shape(lambda: jax.random.key(0))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    blueprint = _blueprint(state, train, mesh, config.mesh.rules, mesh_lib.platform(mesh))
    update = step_lib.Update(task, _transform(train), train.optimizer.ema_decay, train.compute)
    # Without optimiser and recomputation: the work of the model, whatever a machine does.
    gradient = jax.grad(step_lib.loss_with_rest(task), has_aux=True)
    at_once = dataclasses.replace(train.compute, remat="none", accumulate=1)
    alone = step_lib.gradient_alone(dataclasses.replace(update, compute=at_once))
    of_state = lambda count: (state.params, state.params, state.extra, batch(count), key)
    return AbstractCall(
        parallel.jit_step(update, blueprint.shardings, mesh),
        (blueprint.state, batch(train.batch_size), key),
        num_params,
        train.batch_size,
        (gradient, of_state(COUNTED)),
        (alone, of_state(train.batch_size // mesh.size)),
    )


def exchanges(
    name: str, config: run_config.RunConfig, devices: int, platform: str
) -> tuple[scaling.Exchange, ...]:
    """What the step of a stage exchanges for the sake of its parameters, on so many devices of a
    platform.

    Raises ValueError for a mesh that has not as many.
    """
    train, mesh = getattr(config, name).train, mesh_lib.abstract_mesh(config.mesh, devices)
    blueprint = _blueprint(state(name, config), train, mesh, config.mesh.rules, platform)
    gathered = jnp.dtype(train.compute.dtype).itemsize
    return scaling.of_step(blueprint.state.params, blueprint.shardings.params, gathered)


def flops_of_one(counted: AbstractCall) -> float | None:
    """FLOPs of the model for one example or window, without what is computed twice."""
    function, args = counted.flops
    # Of what is lowered: nothing is compiled for a count.
    with blocks.written_out():
        cost = jax.jit(function).lower(*args).cost_analysis() or {}
    return cost["flops"] / COUNTED if "flops" in cost else None


@functools.lru_cache(16)  # a command asks several times
def state(name: str, config: run_config.RunConfig) -> step_lib.TrainState:
    """The shapes of what the training of a stage reads and writes at every step; where embeddings
    are computed elsewhere as if their dimension were 384."""
    return state_of(training_tasks.training_task(name, config), getattr(config, name).train)


def state_of(task: tasks.Task, train: loop.TrainConfig) -> step_lib.TrainState:
    """The same of a task."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = functools.partial(step_lib.init_state, task, _transform(train))
    return jax.eval_shape(init, key, tasks.batch_of(task.batch_spec(), 1))


def _transform(train: loop.TrainConfig) -> optax.GradientTransformation:
    # A schedule has a step at least; weights that are used untrained take none.
    return train.optimizer.transform(train.num_steps or 1)


def _blueprint(
    state: step_lib.TrainState,
    train: loop.TrainConfig,
    mesh: Mesh | AbstractMesh,
    rules: tuple[str, ...],
    platform: str,
) -> parallel.Blueprint:
    storage = train.optimizer.storage(platform)
    return parallel.Blueprint.of(state, _transform(train), mesh, rules, storage)
