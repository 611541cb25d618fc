"""What a large image takes, known before it is rendered."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssldiff_jax.core import bands, durations
from ssldiff_jax.generation import canvas, plan, window_networks
from ssldiff_jax.sampler import memory_estimate, windows
from ssldiff_jax.slides import pyramid

_PYRAMID = 4 / 3  # of an image with its coarser levels

# Compressed files beside the raw pixels, bytes per pixel at the most.
_FILE_BYTES = {
    "png": 3.2, "tif": 1.6, "ome.tif": 1.6, "cog.tif": 5.6, "dzi": 1.6, "ome.zarr": 4.2,
    # Twice: of all levels frames are collected first.
    "dcm": 3.2,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an image takes.

    Attributes:
        windows: of all steps.
        chunks: calls of the compiled program.
        unet_forwards: windows the network sees, padding and guidance counted.
        flops: of network and decoder, as XLA counts them.
        canvas_bytes: of what is kept between steps, and while one ends of what it is held to, all
            devices together.
        chunk_bytes: of what a chunk's windows need at once, at the most.
        disk_bytes: of files and of what is saved on the way.
        held: how many times smaller the coarse image is that it is held to; 0 for none.
        seconds: estimated from one chunk; None where none was tried.
    """

    height: int
    width: int
    steps: int
    windows: int
    chunks: int
    unet_forwards: int
    decoder_calls: int
    flops: float
    canvas_bytes: int
    chunk_bytes: int
    disk_bytes: int
    held: int = 0
    seconds: float | None = None

    @classmethod
    def of(
        cls,
        renderer: canvas.CanvasRenderer,
        image_plan: plan.ImagePlan,
        formats: tuple[str, ...],
        *,
        timed: bool = False,
    ) -> "Cost":
        """The cost of a plan that is written as `formats`; `timed` compiles and runs one chunk to
        know how long it takes."""
        (height, width), window_plan = image_plan.size, image_plan.windows
        networks, params = renderer.networks, renderer.weights.denoiser
        sampler, decodes = networks.sampler, renderer.decodes(image_plan)
        forwards = sampler.unet_forwards(window_plan)
        window, tile = networks.window_call(params), networks.tile_call()
        state_bytes = sampler.state_bytes(window_plan)
        chunks, at_once = sampler.num_chunks(window_plan), sampler.windows_at_once(window_plan)
        # Of raw pixels every format is written.
        raw = networks.kind.pixel_bytes
        pixels = height * width * (raw + _file_bytes(formats, networks.kind))
        seconds = None
        if timed:
            seconds = _seconds_of_chunks(renderer, window_plan) + _seconds_of(tile) * decodes
        return cls(
            height=height,
            width=width,
            steps=window_plan.num_steps,
            windows=window_plan.num_windows,
            chunks=chunks,
            unet_forwards=forwards,
            decoder_calls=decodes,
            flops=_flops(window) * forwards + _flops(tile) * decodes,
            canvas_bytes=state_bytes + sampler.held_bytes(window_plan, image_plan.hold),
            chunk_bytes=at_once * _live_bytes(window),
            # Twice: a saved canvas stays until the next one is whole.
            disk_bytes=int(pixels + 2 * state_bytes),
            held=image_plan.held.factor if image_plan.held else 0,
            seconds=seconds,
        )

    def __str__(self) -> str:
        parts = [
            f"{self.height} × {self.width} px",
            f"{self.windows} windows in {self.steps} steps",
            f"{self.unet_forwards} network calls in {self.chunks} chunks",
            f"{self.decoder_calls} decodes",
            f"{self.flops:.3g} FLOP",
            f"canvas {self.canvas_bytes / 1e6:.1f} MB",
            f"chunk up to {self.chunk_bytes / 1e6:.0f} MB",
            f"disk up to {self.disk_bytes / 1e6:.1f} MB",
        ]
        if self.held:
            parts.append(f"held to {self.height // self.held} × {self.width // self.held} px")
        if self.seconds is not None:
            parts.append(f"about {durations.clock(self.seconds)}")
        return ", ".join(parts)


def _file_bytes(formats: tuple[str, ...], kind: bands.Kind) -> float:
    """Of files, and what is written on the way to one, for a pixel of the image."""
    if kind == bands.RGB_8:
        return sum(_FILE_BYTES[name] for name in formats)
    whole = [name for name in formats if name in pyramid.OF_ALL_BANDS]
    # With coarser levels, and once more while one is written.
    lossless = _PYRAMID * kind.pixel_bytes * (len(whole) + bool(whole))
    return lossless + sum(_FILE_BYTES[name] for name in formats if name not in pyramid.OF_ALL_BANDS)


def _flops(call: window_networks.NetworkCall) -> float:
    # Counted on what is lowered: nothing is compiled for it.
    lowered = jax.jit(call.run).lower(*call.shapes)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def _live_bytes(call: window_networks.NetworkCall) -> int:
    return memory_estimate.peak_live_bytes(jax.make_jaxpr(call.run)(*call.shapes).jaxpr)


def _seconds_of_chunks(renderer: canvas.CanvasRenderer, plan: windows.WindowPlan) -> float:
    """Of all chunks, by one of each kind: the very programs that will run, so that a trial compiles
    nothing that is compiled again."""
    sampler, (params, _) = renderer.networks.sampler, renderer.weights.on_devices
    x_t, condition = renderer.networks.blank_chunk(sampler.windows_at_once(plan))
    total, kinds = 0.0, {sampler.kind(int(t)): int(t) for t in sampler.table.t}
    for kind, count in sampler.chunks_of_kinds(plan).items():
        run = functools.partial(sampler.x0_hat, params, x_t, kinds[kind], condition)
        total += _seconds(run) * count
    return total


def _seconds_of(call: window_networks.NetworkCall) -> float:
    return _seconds(functools.partial(jax.jit(call.run), *jax.tree.map(_filled, call.shapes)))


def _seconds(run: Callable[[], jax.Array]) -> float:
    """Of one call, after one that compiled it."""
    # Compiles, and is not counted.
    jax.block_until_ready(run())
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def _filled(like: Any) -> Any:
    """Weights as they are, zeros for a shape: the time does not depend on the values."""
    is_array = isinstance(like, jax.Array | np.ndarray)
    return like if is_array else jnp.zeros(like.shape, like.dtype)
