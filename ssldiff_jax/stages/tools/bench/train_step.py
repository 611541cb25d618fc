"""Part of the tool `bench`: what a training step costs on the devices of this machine."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssldiff_jax.runs import programs, stage
from ssldiff_jax.train import chips

_STEPS, _REPETITIONS = 8, 5

Figure = tuple[str, list[float], str]
"""Name, value of every repetition, and unit."""


def rows(context: stage.Context) -> Iterator[Figure]:
    """Rate, model FLOPs, their part of what the devices can do, and memory of every step that
    `bench.train` and `bench.batch_size` name; first what a plain product reaches here."""
    bench = context.config.bench
    if not bench.train:
        return
    reached = _product_rates()
    yield "device/bf16_matmul", reached, "FLOP/s"
    for name in bench.train:
        for batch_size in bench.batch_size:
            yield from _step(context, name, batch_size, statistics.median(reached))


def _step(context: stage.Context, name: str, batch_size: int, reached: float) -> Iterator[Figure]:
    program = programs.of_training(name, context.config, context.mesh, batch_size)
    count, flops = program.batch_size, programs.flops_of_one(program)
    label = f"train/{name}/{count}"
    seconds = _seconds(context, program, label.replace("/", "_"))
    yield f"{label}/rate", [count / s for s in seconds], "examples/s"
    devices = context.mesh.size
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


def _seconds(context: stage.Context, program: programs.AbstractCall, label: str) -> list[float]:
    """Of a step, for some steps at a time; then some are traced, if the config says so."""
    compiled = program.function.lower(*program.args).compile()
    state, batch, key = jax.tree.map(_filled, program.args, compiled.input_shardings[0])

    def some_steps(state: Any) -> Any:
        for _ in range(_STEPS):
            state, _ = compiled(state, batch, key)
        return jax.block_until_ready(state)

    state, seconds = some_steps(state), []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        state = some_steps(state)
        seconds.append((time.perf_counter() - began) / _STEPS)
    if context.config.bench.profile:
        with jax.profiler.trace(str(context.folder("bench") / "profile" / label)):
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
    return jax.device_put(np.resize(some.astype(like.dtype), like.shape), sharding)


def _product_rates() -> list[float]:
    """FLOP a second of one device that multiplies two square bfloat16 matrices."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    key, shape = jax.random.key(0), (side, side)
    left, right = (jax.random.normal(k, shape, jnp.bfloat16) for k in jax.random.split(key))
    multiply = jax.jit(jnp.matmul)
    multiply(left, right).block_until_ready()
    rates = []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        jax.block_until_ready([multiply(left, right) for _ in range(_STEPS)])
        rates.append(2 * side**3 * _STEPS / (time.perf_counter() - began))
    return rates
