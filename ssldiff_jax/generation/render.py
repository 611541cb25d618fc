"""A large image drawn into files: told before it starts, saved on the way, continued after a kill,
never whole in memory."""

import dataclasses
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssldiff_jax.core import durations, rng
from ssldiff_jax.evaluation.metrics import seams
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import generator
from ssldiff_jax.generation import plan as drawing_lib
from ssldiff_jax.sampler import memory_estimate, programs, sampler
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import checkpoint, hosts, logs, stopwatch

_LOG = logging.getLogger(__name__)

# Compressed files beside the raw pixels, bytes per pixel at the most.
_FILE_BYTES = {"png": 3.2, "tif": 1.6, "ome.tif": 1.6, "cog.tif": 5.6, "dzi": 1.6}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an image takes, known before it is drawn.

    Attributes:
        windows: at each step.
        chunks: calls of the compiled program.
        unet_forwards: windows the network sees, padding and guidance counted.
        flops: of network and decoder, as XLA counts them.
        canvas_bytes: of what is kept between steps, all devices together.
        chunk_bytes: of what a chunk's windows need at once, at the most.
        disk_bytes: of files and of what is saved on the way.
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
    seconds: float | None = None

    def __str__(self) -> str:
        parts = [
            f"{self.height} × {self.width} px",
            f"{self.steps} steps of {self.windows} windows",
            f"{self.unet_forwards} network calls in {self.chunks} chunks",
            f"{self.decoder_calls} decodes",
            f"{self.flops:.3g} FLOP",
            f"canvas {self.canvas_bytes / 1e6:.1f} MB",
            f"chunk up to {self.chunk_bytes / 1e6:.0f} MB",
            f"disk up to {self.disk_bytes / 1e6:.1f} MB",
        ]
        if self.seconds is not None:
            parts.append(f"about {durations.clock(self.seconds)}")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class LargeImageRender:
    """One drawing on its way into `folder/name.png`, `.tif` …

    Attributes:
        formats: of pyramid.FORMATS.
        scale: microns per pixel, and where the image lies.
    """

    model: generator.Generator
    drawing: drawing_lib.ImagePlan
    folder: pathlib.Path
    name: str
    formats: tuple[str, ...]
    scale: pyramid.Scale

    def run(self) -> dict[str, Any]:
        """Draw, or go on with what a killed run left; returns what it took.

        Raises ValueError where disk or memory cannot hold it, before anything is drawn.
        """
        done = self.folder / f"{self.name}.json"
        if done.exists():
            return atomic.read_json(done)
        cost = self.cost()
        _LOG.info("%s: %s", self.name, cost)
        self._require_room(cost)
        is_first = jax.process_index() == 0
        with stopwatch.Stopwatch(self._between / "seconds.json" if is_first else None) as watch:
            self._write_pixels(self._drawn())
            if is_first:
                self._write_files()
        if is_first:
            facts = {
                "height": cost.height, "width": cost.width,
                "unet_forwards": cost.unet_forwards, "decoder_calls": cost.decoder_calls,
                "seconds": round(watch.seconds, 2),
                "window_lines": [dataclasses.asdict(lines) for lines in self._window_lines()],
            }  # fmt: skip
            atomic.write_json(done, facts)
            shutil.rmtree(self._between)
        hosts.barrier(self.name)
        return atomic.read_json(done)

    def _write_files(self) -> None:
        raw = pyramid.RawImage(self._raw, *self.drawing.size)
        for name in self.formats:
            pyramid.FORMATS[name](self.folder / f"{self.name}.{name}", raw, self.scale)

    def _window_lines(self) -> list[seams.Lines]:
        """Where a seam may be: the borders of the last steps' windows, px."""
        factor = self.model.config.downsample_factor
        return seams.of_last_steps(self.drawing.plan, factor=factor, size=self.drawing.size)

    def cost(self, *, timed: bool = False) -> Cost:
        """What it will take; `timed` compiles and runs one chunk to know how long."""
        model, plan, (height, width) = self.model, self.drawing.plan, self.drawing.size
        forwards, decodes = model.sampler.unet_forwards(plan), model.decoder_calls(plan)
        window, tile = model.window_program(), model.tile_program()
        flops = _flops(window) * forwards + _flops(tile) * decodes
        state = model.sampler.state_bytes(plan)
        chunks, at_once = model.sampler.num_chunks(plan), model.sampler.windows_at_once(plan)
        pixels = height * width * (3 + sum(_FILE_BYTES[name] for name in self.formats))
        seconds = None
        if timed:
            seconds = _seconds(model.window_program(at_once)) * chunks
            seconds += _seconds(tile) * decodes
        return Cost(
            height, width, plan.num_steps, plan.num_windows, chunks, forwards, decodes, flops,
            state, at_once * _alive(window), int(pixels + 2 * state), seconds,
        )  # fmt: skip

    def _drawn(self) -> programs.State:
        """The state after the last step; saved every few minutes."""
        model, plan = self.model, self.drawing.plan
        key = rng.stream(self.drawing.seed, "sample/canvas")
        state = model.sampler.start(plan, key, self.drawing.given)
        place, total = sampler.START, model.sampler.num_chunks(plan)
        most = model.sampler.layout(plan).num_bytes
        saves = checkpoint.CanvasCheckpoints(self._between / "canvas", most)
        if saves.latest is not None:
            state, place = self._restored(saves, state)
            _LOG.info("%s goes on at step %d, chunk %d", self.name, *place)
        start = model.sampler.chunks_before(plan, place)
        progress = logs.Progress(self.name, total, start=start)
        last = time.monotonic()
        walk = model.sampler.iterate(
            model.placed[0], plan, self.drawing.condition, key, state, place
        )
        for state, place in walk:
            jax.block_until_ready(state.x0)
            progress.update()
            if hosts.broadcast_first(time.monotonic() - last > 60 * self._minutes):
                saves.save(
                    model.sampler.chunks_before(plan, place), _arrays(state), place._asdict()
                )
                last = time.monotonic()
        progress.close()
        saves.close()
        return state

    def _restored(self, saves, state) -> tuple[programs.State, sampler.Position]:
        found, place = saves.restore(_arrays(state))
        history = tuple(found["history"][str(i)] for i in range(len(state.history)))
        state = state._replace(x=found["x"], x0=found["x0"], history=history)
        return state, sampler.Position(**place)

    def _write_pixels(self, state: programs.State) -> None:
        """Decode row by row of tiles into a file of raw pixels."""
        strips: Iterator[np.ndarray] = self.model.strips(self.drawing, state)
        progress = logs.Progress(f"{self.name} decoded", self.drawing.size[0])
        is_first = jax.process_index() == 0
        with open(self._raw if is_first else os.devnull, "wb") as raw:
            for strip in strips:
                raw.write(np.ascontiguousarray(strip).data)
                progress.update(len(strip))
        progress.close()

    def _require_room(self, cost: Cost) -> None:
        self._between.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < cost.disk_bytes:
            raise ValueError(
                f"the disk of {self.folder} must hold {cost.disk_bytes / 1e9:.2f} GB for "
                f"{self.name}, got {free / 1e9:.2f} GB free"
            )
        shards = self.model.sampler.canvas.shards
        free = memory_estimate.free_bytes()
        if free < cost.canvas_bytes / shards:
            raise ValueError(
                f"a device must hold {cost.canvas_bytes / shards / 1e9:.2f} GB of the canvas of "
                f"{self.name}, got {free / 1e9:.2f} GB free; sample.canvas_dtype=bfloat16 halves "
                "it, "
                "sample.split=rows shares it between devices"
            )

    @property
    def _minutes(self) -> float:
        return self.model.config.sample.checkpoint_minutes

    @property
    def _between(self) -> pathlib.Path:
        return self.folder / f".{self.name}"

    @property
    def _raw(self) -> pathlib.Path:
        return self._between / "pixels.raw"


def _arrays(state: programs.State) -> dict[str, Any]:
    """What is saved: given latents are made anew."""
    return {
        "x": state.x,
        "x0": state.x0,
        "history": {str(i): h for i, h in enumerate(state.history)},
    }


def _flops(program: drawing_lib.Program) -> float:
    lowered = jax.jit(program.run).lower(*program.shapes)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def _alive(program: drawing_lib.Program) -> int:
    return memory_estimate.peak_live_bytes(jax.make_jaxpr(program.run)(*program.shapes).jaxpr)


def _seconds(program: drawing_lib.Program) -> float:
    """Of one call, after one that compiled it."""
    run = jax.jit(program.run)
    blank = lambda s: s if isinstance(s, jax.Array | np.ndarray) else jnp.zeros(s.shape, s.dtype)
    args = jax.tree.map(blank, program.shapes)
    jax.block_until_ready(run(*args))
    began = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - began
