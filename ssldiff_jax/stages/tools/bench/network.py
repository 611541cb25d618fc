"""Parts of the tool `bench`: the denoiser on windows, and its weights from a file."""

import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from ssldiff_jax.core import layers, memory
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.bench import random_weights, results, timing
from ssldiff_jax.weights import published

# For the shapes alone; published embeddings have 384 to 1536.
_EMBEDDING_DIM = 384


def forward_rows(run: run_config.RunConfig) -> Iterator[results.Figure]:
    """Seconds for one window, alone and in a chunk of the sampler's."""
    config, name = _sizes(run), run.denoiser.network
    model, side, clock = conditioning.Denoiser(config), run.window, timing.CompilerClock()
    forward = jax.jit(lambda params, *args: model.apply({"params": params}, *args))
    params = random_weights.params(published.abstract_denoiser(config))
    # As large images are generated.
    params = layers.cast(params, run.sample.network_dtype)
    params = jax.device_put(params, jax.local_devices()[0])
    for batch in sorted({1, run.sample.window_batch or 1}):
        x_t = layers.like(params, jnp.zeros((batch, side, side, config.network.latent_channels)))
        args = (params, x_t, jnp.zeros(batch, jnp.int32), jnp.ones((batch, config.condition_dim)))
        # Compiled apart: its cost analysis is of what runs.
        compiled, compiling = clock.compiled(forward.lower(*args), f"{name}/batch_{batch}")
        yield compiling
        call = lambda run=compiled, args=args: jax.block_until_ready(run(*args))
        yield f"{name}/forward_batch_{batch}", [s / batch for s in timing.seconds(call)], "s/window"
        flops = (compiled.cost_analysis() or {}).get("flops")
        if flops is not None:  # not every compiler counts
            yield f"{name}/compiled_flops_batch_{batch}", [flops / batch], "FLOP/window"


def _sizes(run: run_config.RunConfig) -> conditioning.DenoiserConfig:
    """Of the denoiser on single patches."""
    per_side, levels = run.embeddings.tokens_per_side, run.data.levels
    return run.denoiser.model(_EMBEDDING_DIM, tokens_per_side=per_side, levels=levels)


def loading_rows(run: run_config.RunConfig, folder: pathlib.Path) -> Iterator[results.Figure]:
    """Seconds to read a safetensors file of the denoiser, and memory beside its size."""
    config = _sizes(run)
    params = random_weights.params(published.abstract_denoiser(config))
    path = folder / "denoiser.safetensors"
    published.export(path, *published.denoiser_parts(config, params))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    # Not counted beside those that are read.
    del params
    memory.reset_peak()
    before = memory.rss_mb()
    load = lambda: published.load_denoiser(published.ModelFile.read(path), config)
    # Few: each reads gigabytes.
    yield "weights/load", timing.seconds(load, repetitions=3), "s"
    yield "weights/peak", [(memory.peak_rss_mb() - before) * 2**20 / size], "× size"
    path.unlink()
