"""Images of any size to canvases: tile by tile, each seen with what lies around it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel, layers
from ssldiff_jax.sampler import conditions


@dataclasses.dataclass(frozen=True)
class TiledEncoder:
    """Image as it is stored → canvas.

    Attributes:
        encode: (params, images in [−1, 1]) → latents.
        factor: pixels per latent.
        tile: side of what is kept of a tile, latent pixels.
        context: latent pixels around it that are seen and cut off.
    """

    encode: Callable[[Any, arrays.BandImage], arrays.Latents]
    factor: int
    tile: int
    context: int

    def __call__(self, params: Any, image: arrays.Pixels, canvas: tuple[int, int]) -> arrays.Canvas:
        """The canvas of an image, mirrored beyond its border."""
        tile, side = self.tile, self.tile + 2 * self.context
        params = self._placed(params, None)
        whole, latents = tuple(-(-size // tile) * tile for size in canvas), None
        for top in range(0, whole[0], tile):
            for left in range(0, whole[1], tile):
                at = [(first - self.context) * self.factor for first in (top, left)]
                rows, cols = (
                    conditions.beyond_border(first, side * self.factor, size, "margin")
                    for first, size in zip(at, image.shape[:2], strict=True)
                )
                encoded = np.asarray(self._jit(params, image[rows][:, cols][None]))[0]
                inner = encoded[self.context :, self.context :][:tile, :tile]
                if latents is None:
                    latents = np.zeros((*whole, inner.shape[-1]), np.float32)
                latents[top : top + tile, left : left + tile] = inner
        return latents[: canvas[0], : canvas[1]]

    @functools.cached_property
    def _placed(self) -> data_parallel.Placed:
        return data_parallel.Placed()

    @functools.cached_property
    def _jit(self) -> Callable[..., jax.Array]:
        return jax.jit(lambda params, image: self.encode(params, layers.to_image(image)))


def keep_of(
    keep: Float[np.ndarray, "H W"], canvas: tuple[int, int], factor: int
) -> Float[np.ndarray, "h w"]:
    """How much of every latent stays, where `keep` says it of every pixel: the least of its
    pixels, so that nothing stays that was to be generated."""
    height, width = (size * factor for size in canvas)
    whole = np.pad(keep, ((0, height - keep.shape[0]), (0, width - keep.shape[1])), mode="edge")
    return whole.reshape(canvas[0], factor, canvas[1], factor).min(axis=(1, 3)).astype(np.float32)
