"""Tool `bench`: what the config's models cost on this machine, as rows of `results.json`.

Weights are random (the part `evaluation` takes the run's where it has them): only time and memory
are looked at.
"""

import dataclasses
import logging
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ssldiff_jax.core import memory
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.bench import archive, evaluation, loader, sampler, train_step
from ssldiff_jax.weights import published

_LOG = logging.getLogger(__name__)

_REPETITIONS = 10
Figure = tuple[str, list[float], str]
"""Name, value of every repetition, and unit."""

# For the shapes alone; published embeddings have 384 to 1536.
_EMBEDDING_DIM = 384


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement: the median, and how far apart the quickest and slowest were."""

    name: str
    value: float
    unit: str
    repetitions: int
    spread: float
    hardware: str


def run(context: stage.Context) -> dict[str, Any]:
    """Measure the parts that `bench.parts` names; each figure is logged and written as it comes."""
    config, folder, mesh = context.config, context.folder("bench"), context.mesh
    measured = {
        "network": lambda: _network(config),
        "weights": lambda: _weights(config, folder),
        "archive": lambda: archive.rows(folder),
        "input": lambda: loader.rows(folder, config.data.loader),
        "images": lambda: sampler.rows(config, mesh, folder),
        "training": lambda: train_step.rows(config, mesh, folder),
        "evaluation": lambda: evaluation.rows(context.artifacts),
    }
    table: list[dict[str, Any]] = []
    for part in config.bench.parts:
        for name, values, unit in measured[part]():
            row = _row(name, values, unit)
            table.append(dataclasses.asdict(row))
            atomic.write_json(folder / "results.json", table)
            _LOG.info("%s: %.4g %s (spread %.2g, %d times)", row.name, row.value, row.unit,
                      row.spread, row.repetitions)  # fmt: skip
    return {"rows": len(table)}


def _network(run: run_config.RunConfig) -> Iterator[Figure]:
    """Seconds for one window, alone and in a chunk of the sampler's."""
    config = run.denoiser.model(_EMBEDDING_DIM)
    model, side = conditioning.Denoiser(config), run.window
    forward = jax.jit(lambda params, *args: model.apply({"params": params}, *args))
    params = jax.device_put(sampler.random_params(published.abstract_denoiser(config)))
    for batch in sorted({1, run.sample.window_batch}):
        x_t = jnp.zeros((batch, side, side, config.unet.latent_channels))
        args = (params, x_t, jnp.zeros(batch, jnp.int32), jnp.ones((batch, config.embedding_dim)))
        # Compiled apart: its cost analysis is of what runs.
        compiled = forward.lower(*args).compile()
        seconds = _time(lambda call=compiled, args=args: jax.block_until_ready(call(*args)))
        yield f"unet/forward_batch_{batch}", [s / batch for s in seconds], "s/window"
        flops = (compiled.cost_analysis() or {}).get("flops", float("nan")) / batch
        yield f"unet/compiled_flops_batch_{batch}", [flops], "FLOP/window"


def _weights(run: run_config.RunConfig, folder: pathlib.Path) -> Iterator[Figure]:
    """Seconds to read a safetensors file of the denoiser, and memory beside its size."""
    config = run.denoiser.model(_EMBEDDING_DIM)
    params = sampler.random_params(published.abstract_denoiser(config))
    path = folder / "denoiser.safetensors"
    published.export(path, *published.denoiser_parts(config, params))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    del params
    memory.reset_peak()
    before = memory.rss_mb()
    load = lambda: published.load_denoiser(published.ModelFile.read(path), config)
    # Few: each reads gigabytes.
    seconds = _time(load, repetitions=3)
    yield "weights/load", seconds, "s"
    yield "weights/peak", [(memory.peak_rss_mb() - before) * 2**20 / size], "× size"
    path.unlink()


def _time(call: Callable[[], Any], repetitions: int = _REPETITIONS) -> list[float]:
    call()
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def _row(name: str, values: list[float], unit: str) -> Row:
    hardware = f"{jax.device_count()} × {jax.devices()[0].device_kind}, {memory.processor()}"
    value_range = max(values) - min(values)
    return Row(name, statistics.median(values), unit, len(values), value_range, hardware)
