"""Part of the tool `bench`: what a training step costs on the devices of this machine."""

import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssldiff_jax.core import platform
from ssldiff_jax.runs import programs
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.bench import results, timing

_STEPS, _REPETITIONS = 8, 5


def rows(
    config: run_config.RunConfig,
    mesh: Mesh,
    name: str,
    batch_size: int,
    traces: pathlib.Path | None = None,
) -> Iterator[results.Figure]:
    """Seconds to compile, rate, model FLOPs and their part of what the devices can do, of the step
    of a stage at a batch; beside what a plain product reaches here. Some steps are traced into
    `traces`, where it is given."""
    program = programs.of_training(name, config, mesh, batch_size)
    count, label = program.batch_size, f"train/{name}/{program.batch_size}"
    # On shapes: it says where each argument is to be made.
    lowered = program.function.lower(*program.args)
    compiled, compiling = timing.CompilerClock().compiled(lowered, label)
    yield compiling
    steps = _Steps(compiled, program.args)
    seconds = steps.seconds()
    yield f"{label}/step", seconds, "s"
    yield f"{label}/rate", [count / s for s in seconds], "examples/s"
    if traces is not None:
        with jax.profiler.trace(str(traces / label.replace("/", "_"))):
            steps.some()
    # Last: of all this it is missed least.
    reached = _product_rates()
    yield "device/bf16_matmul", reached, "FLOP/s"
    flops = programs.flops_of_one(program)
    if flops is not None:
        per_device = [flops * count / s / mesh.size for s in seconds]
        yield f"{label}/model_flops", [flops], "FLOP/example"
        product = statistics.median(reached)
        yield f"{label}/of_matmul_rate", [f / product for f in per_device], "×"
        yield from timing.mfu_figure(label, per_device)


class _Steps:
    """A compiled step on a state and a batch of numbers."""

    def __init__(self, compiled: Any, args: tuple[Any, ...]):
        self._compiled = compiled
        filled = jax.tree.map(_filled, args, compiled.input_shardings[0])
        self._state, self._batch, self._key = filled

    def some(self) -> None:
        """A few of them, to their end."""
        # The state is donated, so that it has to be taken on.
        for _ in range(_STEPS):
            self._state, _ = self._compiled(self._state, self._batch, self._key)
        jax.block_until_ready(self._state)

    def seconds(self) -> list[float]:
        """Of a step, for some steps at a time."""
        return [s / _STEPS for s in timing.seconds(self.some, _REPETITIONS)]


def _filled(like: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array of a shape: zeros would cost some devices less than numbers do."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.device_put(jax.random.key(0), sharding)
    if not jnp.issubdtype(like.dtype, jnp.floating):
        return jax.device_put(np.zeros(like.shape, like.dtype), sharding)
    # Not negative: second moments are among them.
    # Few numbers repeated: to make them all would take longer than the steps.
    some = 0.02 * np.abs(np.random.default_rng(0).standard_normal(2**16, np.float32))
    return jax.device_put(np.resize(some.astype(like.dtype), like.shape), sharding)


def _product_rates() -> list[float]:
    """FLOP a second of one device that multiplies two square bfloat16 matrices."""
    # Large enough that a device is busy, small enough that CPUs end.
    side = 1024 if jax.default_backend() == "cpu" else 8192
    key, shape = jax.random.key(0), (side, side)
    left, right = (jax.random.normal(k, shape, jnp.bfloat16) for k in jax.random.split(key))
    multiply = jax.jit(jnp.matmul, compiler_options=platform.compiler_options())
    multiply(left, right).block_until_ready()
    rates = []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        # Waited for once: calls overlap, as those of a step do.
        jax.block_until_ready([multiply(left, right) for _ in range(_STEPS)])
        rates.append(2 * side**3 * _STEPS / (time.perf_counter() - began))
    return rates
