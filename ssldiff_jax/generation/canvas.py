"""From a plan to a canvas of latents, and from the canvas to pixels, in memory."""

import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from ssldiff_jax.core import arrays, rng
from ssldiff_jax.generation import large_image, plan, window_networks
from ssldiff_jax.sampler import programs, windows


@dataclasses.dataclass(frozen=True, eq=False)
class CanvasRenderer:
    """Renders plans with the networks and the weights of a generator, at `mpp` microns per
    pixel."""

    networks: window_networks.WindowNetworks
    weights: window_networks.Weights
    mpp: float

    def render(self, image_plan: plan.ImagePlan) -> large_image.LargeImage:
        """The image of a plan, in memory."""
        began, networks = time.monotonic(), self.networks
        key = rng.stream(image_plan.seed, "sample/canvas")
        params, _ = self.weights.on_devices
        state = networks.sampler.run(
            params, image_plan.windows, image_plan.condition, key, image_plan.init, image_plan.hold
        )
        # Read back strip by strip, so that the float images are never whole in memory.
        pixels = np.concatenate(list(self.decode_strips(image_plan, state)))
        seconds = time.monotonic() - began
        forwards = networks.sampler.unet_forwards(image_plan.windows)
        decodes = self.decodes(image_plan)
        bands = networks.config.data.reading.multiband
        return large_image.LargeImage(pixels, self.mpp, forwards, decodes, seconds, bands)

    def decode_strips(
        self, image_plan: plan.ImagePlan, state: programs.State
    ) -> Iterator[arrays.Pixels]:
        """The image of a canvas from top to bottom, of exactly the size of the plan, and of the
        colours that it is held to."""
        strips = self._decoded_strips(image_plan, state)
        return strips if image_plan.held is None else image_plan.held.exchanged(strips)

    def _decoded_strips(
        self, image_plan: plan.ImagePlan, state: programs.State
    ) -> Iterator[arrays.Pixels]:
        networks, window_plan = self.networks, image_plan.windows
        beyond, done = self._beyond(window_plan), 0
        height, width = image_plan.size
        # px above the image that are decoded and cut off.
        first = beyond * networks.config.downsample_factor
        rows = lambda top, count: networks.sampler.rows(
            window_plan, state, top - beyond, count, beyond
        )
        _, params = self.weights.on_devices
        for strip in networks.decoder.strips(params, rows, self._decoded(window_plan)):
            # At least 0: a strip that lies below the image whole would count from its own end.
            top, bottom = max(first - done, 0), max(first + height - done, 0)
            part = strip[top:bottom, first : first + width]
            done += len(strip)
            if len(part):
                yield part

    def decodes(self, image_plan: plan.ImagePlan) -> int:
        """Tiles that are decoded for an image, those included that tell how to hold it."""
        held = image_plan.held
        return self.decoder_calls(image_plan.windows) + (held.decoder_calls if held else 0)

    def decoder_calls(self, window_plan: windows.WindowPlan) -> int:
        """Tiles that are decoded for a canvas."""
        return self.networks.decoder.num_tiles(self._decoded(window_plan))

    def _decoded(self, window_plan: windows.WindowPlan) -> tuple[int, int]:
        """Height and width of what the decoder sees."""
        return tuple(size + 2 * self._beyond(window_plan) for size in window_plan.canvas)

    def _beyond(self, window_plan: windows.WindowPlan) -> int:
        """Latent pixels that the decoder sees beyond every side, so that it knows no border."""
        config = self.networks.config
        # No more than is there. Where the grid has no margin, patches decide: as far as they are
        # mirrored when they are decoded alone.
        return min(config.sample.decode.overlap, window_plan.margin or config.context)
