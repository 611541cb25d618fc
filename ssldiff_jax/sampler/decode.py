"""Decode a canvas tile by tile, and blend the overlaps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from ssldiff_jax.core import arrays, layers
from ssldiff_jax.sampler import windows


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Tiles of `tile` latent pixels that overlap by `overlap`, `chunk` of them at a time.

    `ramp` blends linearly over the overlap and rounds to uint8; `paper` weighs every tile by
    exp(−(r/0.8)²), r from its centre with half its side as unit, and truncates.
    """

    tile: int
    overlap: int
    chunk: int
    blend: Literal["ramp", "paper"] = "ramp"

    def __post_init__(self):
        if not 0 <= self.overlap < self.tile:
            raise ValueError(
                f"overlap must lie in [0, tile), got overlap={self.overlap}, tile={self.tile}"
            )


@dataclasses.dataclass(frozen=True)
class TiledDecoder:
    """Canvas → uint8 image.

    Attributes:
        decode: (params, latents) → images in [−1, 1].
        factor: pixels per latent.
    """

    decode: Callable[[Any, arrays.Latents], arrays.Image]
    factor: int
    config: DecodeConfig

    def __call__(self, params: Any, canvas: arrays.Canvas) -> tuple[arrays.ImageUint8, int]:
        """The image, and how many tiles were decoded for it."""
        canvas = np.asarray(canvas)
        tile = min(self.config.tile, *canvas.shape[:2])
        stride = max(tile - self.config.overlap, 1)
        corners = [
            (top, left)
            for top in windows.covering_starts(canvas.shape[0], tile, stride)
            for left in windows.covering_starts(canvas.shape[1], tile, stride)
        ]
        weights = self._weights(tile)
        shape = (canvas.shape[0] * self.factor, canvas.shape[1] * self.factor)
        total, weight = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 1), np.float32)
        for start in range(0, len(corners), self.config.chunk):
            batch = corners[start : start + self.config.chunk]
            tiles = np.stack([canvas[y : y + tile, x : x + tile] for y, x in batch])
            tiles = np.pad(tiles, ((0, self.config.chunk - len(batch)), (0, 0), (0, 0), (0, 0)))
            for (y, x), image in zip(batch, np.asarray(self._jit(params, tiles)), strict=False):
                at = np.s_[y * self.factor :, x * self.factor :]
                side = tile * self.factor
                total[at][:side, :side] += weights * image
                weight[at][:side, :side] += weights
        image = total / weight
        if self.config.blend == "paper":
            return (np.clip((image + 1) / 2, 0, 1) * 255).astype(np.uint8), len(corners)
        return np.asarray(layers.to_uint8(image)), len(corners)

    @functools.cached_property
    def _jit(self) -> Callable[..., jax.Array]:
        return jax.jit(self.decode)

    def _weights(self, tile: int) -> np.ndarray:
        """Weights of a tile's pixels; never zero, so that every pixel has one."""
        if self.config.blend == "paper":
            square = np.linspace(-1, 1, tile * self.factor) ** 2
            radial = np.exp(-(square[:, None] + square) / 0.8**2)
            return (radial / radial.max()).astype(np.float32)[..., None]
        place = np.arange(tile * self.factor) + 0.5
        ramp_px = max(self.config.overlap * self.factor, 1)
        ramp = np.minimum(np.minimum(place, place[::-1]) / ramp_px, 1.0).astype(np.float32)
        return np.outer(ramp, ramp)[..., None]
