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

from ssldiff_jax.runs import programs
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import chips

_STEPS, _REPETITIONS = 8, 5

Figure = tuple[str, list[float], str]
"""Name, value of every repetition, and unit."""


def rows(config: run_config.RunConfig, mesh: Mesh, folder: pathlib.Path) -> Iterator[Figure]:
    """Rate, model FLOPs, their part of what the devices can do, and memory of every step that
    `bench.train` and `bench.batch_size` name; first what a plain product reaches here."""
    bench, traces = config.bench, None
    if bench.profile:
        traces = folder / "profile"
    if not bench.train:
        return
    reached = _product_rates()
    yield "device/bf16_matmul", reached, "FLOP/s"
    for name in bench.train:
        for batch_size in bench.batch_size:
            program = programs.of_training(name, config, mesh, batch_size)
            label = f"{name}/{program.batch_size}"
            trace = traces and traces / f"train/{label}".replace("/", "_")
            yield from _step(program, label, mesh.size, statistics.median(reached), trace)


def _step(
    program: programs.AbstractCall,
    label: str,
    devices: int,
    reached: float,
    trace: pathlib.Path | None,
) -> Iterator[Figure]:
    count, flops = program.batch_size, programs.flops_of_one(program)
    label, seconds = f"train/{label}", _seconds(program, trace)
    yield f"{label}/rate", [count / s for s in seconds], "examples/s"
    if flops is not None:
        per_device = [flops * count / s / devices for s in seconds]
        yield f"{label}/model_flops", [flops], "FLOP/example"
        yield f"{label}/of_matmul_rate", [f / reached for f in per_device], "×"
        chip = chips.chip(jax.devices()[0].device_kind)
        if chip is not None:
            yield f"{label}/mfu", [f / chip.flops for f in per_device], "×"
    memory = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        yield f"{label}/peak_since_start", [memory["peak_bytes_in_use"]], "B"


def _seconds(program: programs.AbstractCall, trace: pathlib.Path | None) -> list[float]:
    """Of a step, for some steps at a time; then some are traced into a folder, where one is
    given."""
    # On shapes: it says where each argument is to be made.
    compiled = program.function.lower(*program.args).compile()
    state, batch, key = jax.tree.map(_filled, program.args, compiled.input_shardings[0])

    def some_steps(state: Any) -> Any:
        for _ in range(_STEPS):
            state, _ = compiled(state, batch, key)
        return jax.block_until_ready(state)

    # Once unmeasured; the state is donated, so that it has to be taken on.
    state, seconds = some_steps(state), []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        state = some_steps(state)
        seconds.append((time.perf_counter() - began) / _STEPS)
    if trace is not None:
        with jax.profiler.trace(str(trace)):
            some_steps(state)
    return seconds


def _filled(like: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array of a shape: zeros would cost some devices less than numbers do."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.device_put(jax.random.key(0), sharding)
    if not jnp.issubdtype(like.dtype, jnp.floating):
        return jax.device_put(np.zeros(like.shape, like.dtype), sharding)
    # Not negative: second moments are among them.
    some = 0.02 * np.abs(np.random.default_rng(0).standard_normal(2**16, np.float32))
    # Few numbers repeated: to make them all would take longer than the steps.
    return jax.device_put(np.resize(some.astype(like.dtype), like.shape), sharding)


def _product_rates() -> list[float]:
    """FLOP a second of one device that multiplies two square bfloat16 matrices."""
    # Large enough that a device is busy, small enough that CPUs end.
    side = 1024 if jax.default_backend() == "cpu" else 8192
    key, shape = jax.random.key(0), (side, side)
    left, right = (jax.random.normal(k, shape, jnp.bfloat16) for k in jax.random.split(key))
    multiply = jax.jit(jnp.matmul)
    multiply(left, right).block_until_ready()
    rates = []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        # Waited for once: calls overlap, as those of a step do.
        jax.block_until_ready([multiply(left, right) for _ in range(_STEPS)])
        rates.append(2 * side**3 * _STEPS / (time.perf_counter() - began))
    return rates
