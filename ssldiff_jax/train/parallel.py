"""Two ways to run the pure step on many devices: `jit` over a mesh, and `pmap`."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ssldiff_jax.core import arrays
from ssldiff_jax.train import mesh as mesh_lib
from ssldiff_jax.train import step as step_lib

_UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def born_sharded(
    task: step_lib.Task,
    tx: optax.GradientTransformation,
    key: arrays.Key,
    batch: Mapping[str, Any],
    mesh: Mesh,
    rules: tuple[str, ...],
) -> tuple[step_lib.TrainState, Any]:
    """The first state, initialised on the devices it lives on, and its shardings.

    What is the same on all of them is drawn once and copied.
    """
    # It runs once: on CPU, where XLA compiles every draw anew, optimising it costs far more.
    options = _UNOPTIMISED if jax.default_backend() == "cpu" else None
    batch = jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), dict(batch))
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


def jit_step(step: step_lib.StepFn, shardings: Any, mesh: Mesh) -> step_lib.StepFn:
    """Compile `step` for the mesh: state as `shardings` say, batch split, metrics replicated."""
    batch, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, batch, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )


def pmap_step(step: step_lib.StepFn) -> step_lib.StepFn:
    """Compile `step` (made with axis_name="batch") for all local devices.

    State and metrics keep their unreplicated shapes outside. Right for losses that are means over
    examples; a contrastive loss sees only the negatives on its own device.
    """
    devices = jax.local_device_count()
    mapped = jax.pmap(step, axis_name="batch", in_axes=(None, 0, None), out_axes=None)

    def run(state, batch, key):
        split = lambda x: np.reshape(x, (devices, -1, *np.shape(x)[1:]))
        return mapped(state, jax.tree.map(split, dict(batch)), key)

    return run
