"""A large image rendered into files: its cost is known before it starts, it is saved on the way and
continued after a kill, and it is never whole in memory."""

import dataclasses
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ssldiff_jax.core import rng
from ssldiff_jax.evaluation.metrics import seams
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import canvas, plan
from ssldiff_jax.generation import cost as cost_lib
from ssldiff_jax.sampler import memory_estimate, programs, sampler, shrunk
from ssldiff_jax.slides import optional, pyramid
from ssldiff_jax.train import hosts, logs, stopwatch

if TYPE_CHECKING:
    from ssldiff_jax.train import checkpoint

_LOG = logging.getLogger(__name__)

_AGREED_EVERY = 8  # chunks
_ROWS = 256  # px that are read at a time


@dataclasses.dataclass(frozen=True)
class LargeImageRender:
    """One plan on its way into `folder/name.png`, `.tif` …

    Attributes:
        formats: of pyramid.FORMATS.
        scale: microns per pixel, and where the image lies.
    """

    renderer: canvas.CanvasRenderer
    plan: plan.ImagePlan
    folder: pathlib.Path
    name: str
    formats: tuple[str, ...]
    scale: pyramid.Scale

    def run(self, inspect: Callable[[pyramid.RawImage], None] | None = None) -> dict[str, Any]:
        """Render, or resume what a killed run left; returns what it took. `inspect` sees the pixels
        before they go, on the first host.

        Raises ValueError where disk or memory cannot hold it, before anything is rendered.
        """
        done = self.folder / f"{self.name}.json"
        # Written last: files beside it are whole.
        if done.exists():
            return atomic.read_json(done)
        cost = self.cost()
        _LOG.info("%s: %s", self.name, cost)
        self._require_room(cost)
        # All hosts render; what is written is written once.
        is_first = hosts.is_first()
        with stopwatch.Stopwatch(self._between / "seconds.json" if is_first else None) as watch:
            self._write_pixels(self._last_state())
            if is_first:
                self._write_files()
                if inspect:
                    inspect(self._pixels)
        if is_first:
            facts = {
                "height": cost.height, "width": cost.width,
                "unet_forwards": cost.unet_forwards, "decoder_calls": cost.decoder_calls,
                "seconds": round(watch.seconds, 2),
                "window_lines": [dataclasses.asdict(lines) for lines in self._window_lines()],
            } | self._held_facts()  # fmt: skip
            atomic.write_json(done, facts)
            # After the facts: a kill in between leaves too much, and nothing unfinished that looks
            # done.
            shutil.rmtree(self._between)
        hosts.barrier(self.name)
        return atomic.read_json(done)

    def cost(self, *, timed: bool = False) -> cost_lib.Cost:
        """What it will take; `timed` compiles and runs one chunk to know how long."""
        return cost_lib.Cost.of(self.renderer, self.plan, self.formats, timed=timed)

    def _held_facts(self) -> dict[str, Any]:
        """How much the image, shrunk, is like the coarse one that it is held to."""
        held = self.plan.held
        if held is None:
            return {}
        raw, step = self._pixels, held.factor * -(-_ROWS // held.factor)
        strips = (raw.rows(top, step) for top in range(0, raw.height, step))
        value = shrunk.correlation(strips, held.coarse, held.factor)
        _LOG.info(
            "%s, shrunk %d times, has correlation %.4f with what it is held to",
            self.name, held.factor, value,
        )  # fmt: skip
        return {"held_factor": held.factor, "coarse_correlation": value}

    def _write_files(self) -> None:
        raw = self._pixels
        for name in self.formats:
            pyramid.FORMATS[name](self.folder / f"{self.name}.{name}", raw, self.scale)

    def _window_lines(self) -> list[seams.Lines]:
        """Where a seam may be: the borders of the last steps' windows, px."""
        factor = self.renderer.networks.config.downsample_factor
        return seams.of_last_steps(self.plan.windows, factor=factor, size=self.plan.size)

    def _last_state(self) -> programs.State:
        """The state after the last step; saved every few minutes."""
        # Not at the top: a machine that only computes need not have Orbax.
        from ssldiff_jax.train import checkpoint

        grid_sampler, window_plan = self.renderer.networks.sampler, self.plan.windows
        key = rng.stream(self.plan.seed, "sample/canvas")
        state = grid_sampler.start(window_plan, key, self.plan.init, self.plan.hold)
        position, total = sampler.START, grid_sampler.num_chunks(window_plan)
        most = grid_sampler.layout(window_plan).num_bytes
        saves = checkpoint.CanvasCheckpoints(self._between / "canvas", most)
        if saves.latest is not None:
            state, position = _restored(saves, state)
            _LOG.info("%s resumes at step %d, chunk %d", self.name, *position)
        start = grid_sampler.chunks_before(window_plan, position)
        progress = logs.Progress(self.name, total, start=start)
        last, params = time.monotonic(), self.renderer.weights.on_devices[0]
        states = grid_sampler.iterate(
            params, window_plan, self.plan.condition, key, state, position, self.plan.hold
        )
        for done, (state, position) in enumerate(states, start=1):
            progress.update()
            # Several hosts agree after a step, and now and then within it: for an answer each waits
            # for its devices.
            if hosts.together() and position.chunk and done % _AGREED_EVERY:
                continue
            # By the first host's clock: all save at one place or none does.
            if hosts.broadcast_first(time.monotonic() - last > 60 * self._minutes):
                chunks = grid_sampler.chunks_before(window_plan, position)
                saves.save(chunks, _arrays(state), position._asdict())
                last = time.monotonic()
        progress.close()
        saves.close()
        return state

    def _write_pixels(self, state: programs.State) -> None:
        """Decode row by row of tiles into a file of raw pixels."""
        progress = logs.Progress(f"{self.name} decoded", self.plan.size[0])
        is_first = hosts.is_first()
        # Other hosts decode their share, and let go of the pixels.
        with open(self._raw if is_first else os.devnull, "wb") as raw:
            for strip in self.renderer.decode_strips(self.plan, state):
                raw.write(np.ascontiguousarray(strip).data)
                progress.update(len(strip))
        progress.close()

    def _require_room(self, cost: cost_lib.Cost) -> None:
        optional.require(self.formats)
        self._between.mkdir(parents=True, exist_ok=True)
        # Hours of rendering would otherwise end in a full disk.
        free = shutil.disk_usage(self.folder).free
        if free < cost.disk_bytes:
            raise ValueError(
                f"the disk of {self.folder} must hold {cost.disk_bytes / 1e9:.2f} GB for "
                f"{self.name}, got {free / 1e9:.2f} GB free"
            )
        shards = self.renderer.networks.sampler.canvas.shards
        free = memory_estimate.free_bytes()
        if free < cost.canvas_bytes / shards:
            raise ValueError(
                f"a device must hold {cost.canvas_bytes / shards / 1e9:.2f} GB of the canvas of "
                f"{self.name}, got {free / 1e9:.2f} GB free; sample.canvas_dtype=bfloat16 halves "
                "it, sample.split=rows shares it between devices"
            )

    @property
    def _minutes(self) -> float:
        return self.renderer.networks.config.sample.checkpoint_minutes

    @property
    def _between(self) -> pathlib.Path:
        return self.folder / f".{self.name}"

    @property
    def _pixels(self) -> pyramid.RawImage:
        kind = self.renderer.networks.kind
        return pyramid.RawImage(self._raw, *self.plan.size, kind.count, kind.dtype)

    @property
    def _raw(self) -> pathlib.Path:
        return self._between / "pixels.raw"


def _restored(
    saves: "checkpoint.CanvasCheckpoints", state: programs.State
) -> tuple[programs.State, sampler.Position]:
    saved, position = saves.restore(_arrays(state))
    history = tuple(saved["history"][str(i)] for i in range(len(state.history)))
    state = state._replace(x=saved["x"], x0_sum=saved["x0"], history=history)
    return state, sampler.Position(**position)


def _arrays(state: programs.State) -> dict[str, Any]:
    """What is saved, under names that stay, so that earlier files are read: known latents are
    computed again."""
    return {
        "x": state.x,
        "x0": state.x0_sum,
        "history": {str(i): h for i, h in enumerate(state.history)},
    }
