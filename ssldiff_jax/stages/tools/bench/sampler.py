"""Part of the tool `bench`: what large images cost, beside the published algorithm on the same
weights, which are random."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import memory, rng
from ssldiff_jax.diffusion import conditioning, guidance, solvers
from ssldiff_jax.generation import generator, models, plan, render
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import sample as sample_config
from ssldiff_jax.sampler import decode, windows
from ssldiff_jax.slides import pyramid
from ssldiff_jax.weights import published

# Its length hardly counts among the costs of a window.
_EMBEDDING_DIM = 96
# Of the published large images.
_PAPER_STEPS = 50

Figure = tuple[str, list[float], str]
"""Name, the one value, and unit."""


def rows(config: run_config.RunConfig, mesh: Mesh, folder: pathlib.Path) -> Iterator[Figure]:
    """Calls, decodes, seconds and memory of every size, generated into a file; then those of the
    published algorithm at the first size, and how many times more they are."""
    bench, model = config.bench, _random_model(config, mesh)
    if not bench.sizes:
        return
    ours: dict[str, float] = {}
    for size in bench.sizes:
        cost = _ours(model, size, folder / "sampler")
        ours = ours or cost
        for name, (value, unit) in _units(cost).items():
            yield f"sampler/{config.sample.windows.mode}/{size}/{name}", [value], unit
    if bench.paper_steps:
        size = bench.sizes[0]
        paper = _paper(model, size, bench.paper_steps)
        for name, (value, unit) in _units(paper).items():
            yield f"sampler/paper/{size}/{name}", [value], unit
        for name in ("unet_forwards", "seconds"):
            yield f"sampler/paper_over_ours/{size}/{name}", [paper[name] / ours[name]], "×"


def _units(costs: dict[str, float]) -> dict[str, tuple[float, str]]:
    units = {"unet_forwards": "windows", "decoder_calls": "tiles", "seconds": "s"}
    return {name: (value, units.get(name, "B")) for name, value in costs.items()}


def _ours(model: generator.Generator, size: int, folder: pathlib.Path) -> dict[str, float]:
    scale = pyramid.Scale(model.mpp)
    # Once for the compiler, at a size of the same programs; the clock runs the second time.
    image_plan = _plan(model, size)
    # Freed at once: two canvases would count as memory of the second.
    for array in jax.tree.leaves(_some_steps(model, image_plan, 1)):
        array.delete()
    memory.reset_peak()
    began, before = time.perf_counter(), memory.rss_mb()
    large = render.LargeImageRender(model.renderer, image_plan, folder, "image", ("tif",), scale)
    facts = large.run()
    seconds, peak = time.perf_counter() - began, memory.peak_rss_mb()
    shutil.rmtree(folder)
    canvas = model.networks.sampler.state_bytes(image_plan.windows)
    return {
        "unet_forwards": facts["unet_forwards"],
        "decoder_calls": facts["decoder_calls"],
        "seconds": seconds,
        "canvas_bytes": canvas,
        "peak_bytes": peak * 2**20,
        "peak_beyond_canvas_bytes": peak * 2**20 - canvas,
        "before_bytes": before * 2**20,
    }


def _paper(model: generator.Generator, size: int, steps: int) -> dict[str, float]:
    """Seconds of a few steps, multiplied, and of all decodes."""
    sample, window = model.config.sample, model.config.window
    published_ = model.with_sample(
        dataclasses.replace(
            sample,
            conditioning="interpolated",
            guidance=dataclasses.replace(guidance.UNGUIDED, scale=4.0),
            # As its code samples: t = 1000 … 20, 169 windows at 1024², scale 4, overlapping
            # decodes.
            solver=solvers.SolverConfig("paper", _PAPER_STEPS, 0.0, 999, "trailing"),
            windows=windows.WindowConfig("paper", 1, 0, "uniform", "margin"),
            decode=decode.DecodeConfig(window, window - window // 4, sample.decode.chunk, "paper"),
        )
    )
    image_plan = _plan(published_, size)
    _some_steps(published_, image_plan, 1)
    began = time.perf_counter()
    state = _some_steps(published_, image_plan, steps)
    # Every step costs the same: all its windows, with guidance.
    seconds = (time.perf_counter() - began) * _PAPER_STEPS / steps
    began = time.perf_counter()
    list(published_.renderer.decode_strips(image_plan, state))
    return {
        "unet_forwards": published_.networks.sampler.unet_forwards(image_plan.windows),
        "decoder_calls": published_.renderer.decoder_calls(image_plan.windows),
        "seconds": seconds + time.perf_counter() - began,
    }


def _some_steps(model: generator.Generator, image_plan: plan.ImagePlan, steps: int):
    """The state after the first steps."""
    sampler, window_plan = model.networks.sampler, image_plan.windows
    params, key = model.weights.denoiser, rng.stream(0, "bench")
    state = sampler.start(window_plan, key)
    states = sampler.iterate(params, window_plan, image_plan.condition, key, state)
    for reached, position in states:
        if position.step == steps:
            return jax.block_until_ready(reached)
    raise ValueError(f"a plan must have {steps} steps, got {window_plan.num_steps}")


def _plan(model: generator.Generator, size: int) -> plan.ImagePlan:
    cells = max(size // model.patch_px, 1)
    grid = np.random.default_rng(0).standard_normal((cells, cells, _EMBEDDING_DIM), np.float32)
    return model.plan_from_grid(grid, size=(size, size))


def _random_model(config: run_config.RunConfig, mesh: Mesh) -> generator.Generator:
    denoiser = config.denoiser.model(_EMBEDDING_DIM, config.num_cells)
    channels = config.autoencoder.model.chosen.latent_channels
    decoder = random_params(published.abstract_autoencoder(config.autoencoder.model))
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    trained = models.Models(
        None,
        autoencoder.TrainedAutoencoder(config.autoencoder.model, decoder, scaling),
        conditioning.Denoiser(denoiser),
        random_params(published.abstract_denoiser(denoiser)),
    )
    conditioning_kind = "cells" if config.num_cells > 1 else "interpolated"
    sample: sample_config.SampleSection = dataclasses.replace(
        config.sample, conditioning=conditioning_kind
    )
    return generator.Generator(dataclasses.replace(config, sample=sample), trained, mesh)


def random_params(like: Any) -> Any:
    """Small random arrays of the shapes in a tree."""
    source = np.random.default_rng(0)
    # Small, so that nothing overflows in bfloat16, and no zeros, which some devices multiply
    # faster.
    normal = lambda leaf: 0.02 * source.standard_normal(leaf.shape, np.float32)
    return jax.tree.map(normal, like)
