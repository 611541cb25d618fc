"""Part of the tool `bench`: what large images cost, beside the published algorithm on the same
weights, which are random."""

import collections
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import data_parallel, memory, rng
from ssldiff_jax.diffusion import conditioning, guidance, solvers
from ssldiff_jax.generation import generator, models, plan
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import sample as sample_config
from ssldiff_jax.sampler import decode, windows
from ssldiff_jax.stages.tools.bench import random_weights, results, timing
from ssldiff_jax.weights import published

# Its length hardly counts among the costs of a window.
_EMBEDDING_DIM = 96
# Of the published large images.
_PAPER_STEPS = 50


def rows(config: run_config.RunConfig, mesh: Mesh, size: int) -> Iterator[results.Figure]:
    """Seconds to compile, calls, decodes, seconds and memory of an image, whose pixels are let go;
    at the first of the config's sizes also those of the published algorithm, and how many times
    more they are."""
    model, clock = _random_model(config, mesh), timing.CompilerClock()
    label, image_plan = f"sampler/{config.sample.windows.mode}/{size}", _plan(model, size)
    ours = _ours(model, image_plan, clock)
    yield clock.figure(label, ours.pop("compile"))
    yield from _figures(label, ours)
    yield from _of_devices(model, image_plan, label, ours["sampling"])
    if config.bench.paper_steps and size == config.bench.sizes[0]:
        paper = _paper(model, size, config.bench.paper_steps)
        yield from _figures(f"sampler/paper/{size}", paper)
        for name in ("unet_forwards", "seconds"):
            yield f"sampler/paper_over_ours/{size}/{name}", [paper[name] / ours[name]], "×"


def _figures(label: str, costs: dict[str, float]) -> Iterator[results.Figure]:
    units = {"unet_forwards": "windows", "decoder_calls": "tiles"}
    for name, value in costs.items():
        unit = "B" if name.endswith("_bytes") else units.get(name, "s")
        yield f"{label}/{name}", [value], unit


def _ours(
    model: generator.Generator, image_plan: plan.ImagePlan, clock: timing.CompilerClock
) -> dict[str, float]:
    """What an image costs, and what the compiler took before: the first of two short runs is
    longer by that."""
    first, second = (_seconds_of(lambda: _short_run(model, image_plan)) for _ in range(2))
    memory.reset_peak()
    before = memory.rss_mb()
    sampler, params = model.networks.sampler, model.weights.on_devices[0]
    key, state = rng.stream(0, "bench"), None

    def sample() -> None:
        nonlocal state
        state = jax.block_until_ready(
            sampler.run(params, image_plan.windows, image_plan.condition, key)
        )

    sampling = _seconds_of(sample)
    # Strip by strip, as files are written: no more than one is held.
    decoding = _seconds_of(lambda: collections.deque(_strips(model, image_plan, state), maxlen=0))
    peak, canvas = memory.peak_rss_mb() * 2**20, sampler.state_bytes(image_plan.windows)
    return {
        "compile": max(first - second, 0.0),
        "unet_forwards": sampler.unet_forwards(image_plan.windows),
        "decoder_calls": model.renderer.decoder_calls(image_plan.windows),
        "seconds": sampling + decoding,
        "sampling": sampling,
        "decoding": decoding,
        "canvas_bytes": canvas,
        "peak_bytes": peak,
        "peak_beyond_canvas_bytes": peak - canvas,
        "before_bytes": before * 2**20,
    }


def _short_run(model: generator.Generator, image_plan: plan.ImagePlan) -> None:
    """All that is compiled for an image: one step, the network as later steps ask for it, and one
    strip."""
    state = _some_steps(model, image_plan, 1)
    jax.block_until_ready([run() for run, _ in _chunks(model, image_plan)])
    next(_strips(model, image_plan, state))
    # Else the image would find its room taken.
    for array in jax.tree.leaves(state):
        array.delete()


def _chunks(
    model: generator.Generator, image_plan: plan.ImagePlan
) -> Iterator[tuple[Callable[[], jax.Array], int]]:
    """The network on a chunk of windows that lies on the devices, with and without guidance, and
    how many such chunks an image has."""
    networks, window_plan = model.networks, image_plan.windows
    sampler, params = networks.sampler, model.weights.on_devices[0]
    blank = networks.blank_chunk(sampler.windows_at_once(window_plan))
    x_t, condition = (data_parallel.put(a, sampler.canvas.in_parts) for a in blank)
    times = {sampler.kind(int(t)): int(t) for t in sampler.table.t}
    for kind, count in sampler.chunks_of_kinds(window_plan).items():
        yield functools.partial(sampler.x0_hat, params, x_t, times[kind], condition), count


def _strips(model: generator.Generator, image_plan: plan.ImagePlan, state: Any) -> Iterator[Any]:
    return iter(model.renderer.decode_strips(image_plan, state))


def _seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _of_devices(
    model: generator.Generator, image_plan: plan.ImagePlan, label: str, sampling: float
) -> Iterator[results.Figure]:
    """How fast windows went through the network, and the part of the time that devices waited for
    this process or moved windows: all but what chunks take that lie on them."""
    networks, devices = model.networks, model.networks.mesh.size
    calls = networks.sampler.unet_forwards(image_plan.windows)
    alone = 0.0
    for run, count in _chunks(model, image_plan):
        each = timing.seconds(lambda run=run: jax.block_until_ready(run()), repetitions=5)
        alone += statistics.median(each) * count
    yield f"{label}/windows_rate", [calls / sampling], "windows/s"
    yield f"{label}/network_alone", [alone], "s"
    yield f"{label}/device_waits", [max(1 - alone / sampling, 0.0)], "×"
    window = networks.window_call(model.weights.on_devices[0])
    # Of what is lowered: nothing is compiled for a count.
    flops = (jax.jit(window.run).lower(*window.shapes).cost_analysis() or {}).get("flops")
    if flops:
        yield f"{label}/model_flops", [flops], "FLOP/window"
        yield from timing.mfu_figure(label, [flops * calls / sampling / devices])


def _paper(model: generator.Generator, size: int, steps: int) -> dict[str, float]:
    """Seconds of a few steps, multiplied, and of all decodes."""
    sample, window = model.config.sample, model.config.window
    solver = solvers.SolverConfig("paper", _PAPER_STEPS, 0.0, 999, "trailing")
    if not model.config.denoiser.schedule.preserves_variance:
        # Of a path that it does not know: the solver that it varies, with as much noise.
        solver = dataclasses.replace(solver, name="ddim", eta=0.24)
    as_published = model.with_sample(
        dataclasses.replace(
            sample,
            student="off",
            conditioning="interpolated",
            guidance=dataclasses.replace(guidance.UNGUIDED, scale=4.0),
            # As its code samples: t = 1000 … 20, 169 windows at 1024², scale 4, overlapping
            # decodes.
            solver=solver,
            windows=windows.WindowConfig("paper", 1, 0, "uniform", "margin", windows.SIDE_BY_SIDE),
            decode=decode.DecodeConfig(window, window - window // 4, sample.decode.chunk, "paper"),
        )
    )
    image_plan = _plan(as_published, size)
    _some_steps(as_published, image_plan, 1)
    began = time.perf_counter()
    state = _some_steps(as_published, image_plan, steps)
    # Every step costs the same: all its windows, with guidance.
    seconds = (time.perf_counter() - began) * _PAPER_STEPS / steps
    began = time.perf_counter()
    list(as_published.renderer.decode_strips(image_plan, state))
    return {
        "unet_forwards": as_published.networks.sampler.unet_forwards(image_plan.windows),
        "decoder_calls": as_published.renderer.decoder_calls(image_plan.windows),
        "seconds": seconds + time.perf_counter() - began,
    }


def _some_steps(model: generator.Generator, image_plan: plan.ImagePlan, steps: int):
    """The state after the first steps."""
    sampler, window_plan = model.networks.sampler, image_plan.windows
    params, key = model.weights.on_devices[0], rng.stream(0, "bench")
    state = sampler.start(window_plan, key)
    states = sampler.iterate(params, window_plan, image_plan.condition, key, state)
    for reached, position in states:
        if position.step == steps:
            return jax.block_until_ready(reached)
    raise ValueError(f"a plan must have {steps} steps, got {window_plan.num_steps}")


def _plan(model: generator.Generator, size: int) -> plan.ImagePlan:
    cells = max(size // model.patch_px, 1)
    shape = (cells, cells, model.embedding_dim)
    grid = np.random.default_rng(0).standard_normal(shape, np.float32)
    return model.plan_from_grid(grid, size=(size, size))


def _random_model(config: run_config.RunConfig, mesh: Mesh) -> generator.Generator:
    denoiser = config.denoiser_sizes(_EMBEDDING_DIM)
    channels = config.autoencoder.model.chosen.latent_channels
    decoder = random_weights.params(published.abstract_autoencoder(config.autoencoder.model))
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    draw = lambda sizes: random_weights.params(published.abstract_denoiser(sizes))
    student = None
    if config.sample.student != "off":
        sizes = denoiser.of_student
        student = models.Network(conditioning.Denoiser(sizes), draw(sizes))
    trained = models.Models(
        None,
        autoencoder.TrainedAutoencoder(config.autoencoder.model, decoder, scaling),
        conditioning.Denoiser(denoiser),
        draw(denoiser),
        student=student,
    )
    conditioning_kind = "cells" if config.num_cells > 1 else "interpolated"
    sample: sample_config.SampleSection = dataclasses.replace(
        config.sample, conditioning=conditioning_kind
    )
    return generator.Generator(dataclasses.replace(config, sample=sample), trained, mesh)
