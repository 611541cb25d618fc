"""Images held to a coarse one: what is held, and the linear twins that hold it."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from ssldiff_jax.core import arrays, bands
from ssldiff_jax.generation import window_networks
from ssldiff_jax.sampler import hold, shrunk, twins, windows

_LATENTS = 64**2
"""That twins are fitted to, at least."""
_BORDER = 4  # latents along the border of a tile that are not
_NOISE = 0.5
"""Added to the latents of the enlarged coarse image, in their deviations: it has no texture, and
what latents with texture decode to is another colour."""


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """What an image is held to.

    Attributes:
        coarse: an image `factor` times smaller.
        hold: the same for its canvas.
        decoder_calls: that the twins took; the encoder's are as many at the most.
        kind: of both images.
    """

    coarse: arrays.Pixels
    factor: int
    hold: hold.Hold
    decoder_calls: int
    kind: bands.Kind

    @classmethod
    def of(
        cls,
        networks: window_networks.WindowNetworks,
        plan: windows.WindowPlan,
        coarse: arrays.Pixels,
        factor: int,
    ) -> "Held":
        """With twins of the networks' autoencoder, fitted to the coarse image."""
        fitted = _Fit(networks, coarse, factor)
        px = networks.config.downsample_factor
        own = hold.Hold.of(coarse, fitted.twins, plan.canvas, factor=factor, px=px)
        return cls(coarse, factor, own, fitted.decoder_calls, networks.kind)

    def exchanged(self, strips: Iterator[arrays.Pixels]) -> Iterator[arrays.Pixels]:
        """An image from top to bottom, with what it still lacks of the coarse one."""
        return shrunk.exchanged(strips, self.coarse, self.factor, self.kind)


def require_factor(factor: int, window: int, px: int, name: str) -> None:
    """Raises ValueError, which calls the coarse image `name`, for a factor whose squares are not
    whole latents, or parts of one, in windows of `window` latents of `px` pixels."""
    known = [k for k in range(2, window * px + 1) if _fits(k, window, px)]
    if factor not in known:
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, known))} times smaller than the image, "
            f"whose windows have {window * px} px, got {factor} times"
        )


def _fits(factor: int, window: int, px: int) -> bool:
    if factor < px:
        return px % factor == 0
    # Whole squares in a window, so that those of a field that goes round meet.
    return factor % px == 0 and window % (factor // px) == 0


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Twins of an autoencoder, by what it makes of a coarse image."""

    networks: window_networks.WindowNetworks
    coarse: arrays.Pixels
    factor: int

    @functools.cached_property
    def twins(self) -> twins.LinearTwins:
        """Fitted to latents of the enlarged image with noise, and what these decode to."""
        side, px = self._side, self.networks.config.downsample_factor
        latents = self.networks.encode_image(self._enlarged(side * px), (side, side))
        deviation, source = latents.std(axis=(0, 1)), np.random.default_rng(0)
        parts, pairs, kind = max(px // self.factor, 1), [], self.networks.kind
        for _ in range(self.decoder_calls):
            noise = source.standard_normal(latents.shape, np.float32)
            seen = latents + _NOISE * deviation * noise
            image, _ = self.networks.decoder(self.networks.decoder_params, seen)
            colours = shrunk.shrink(image / np.float32(kind.top / 2) - 1, px // parts)
            # A decoder takes what lies beyond its tile for zeros.
            inner = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
            pairs.append((seen[inner], twins.packed(colours, parts)[inner]))
        return twins.LinearTwins.fit(pairs)

    @property
    def decoder_calls(self) -> int:
        """Tiles that are decoded, each with other noise."""
        return -(-_LATENTS // (self._side - 2 * _BORDER) ** 2)

    @property
    def _side(self) -> int:
        """Of a tile, latents: as large as those of images, so that nothing else is compiled."""
        return max(self.networks.config.sample.decode.tile, 4 * _BORDER)

    def _enlarged(self, px: int) -> arrays.Pixels:
        """A square of `px` pixels where the coarse image varies most; mirrored where it is
        smaller."""
        count = -(-px // self.factor)
        rows, cols = (
            shrunk.mirrored(np.arange(-shrunk.REACH, count + shrunk.REACH) + first, size)
            for first, size in zip(self._place(count), self.coarse.shape[:2], strict=True)
        )
        image = shrunk.spread(self.coarse[rows][:, cols].astype(np.float32), self.factor)
        return self.networks.kind.rounded(image[:px, :px])

    def _place(self, count: int) -> tuple[int, int]:
        """Where the square of `count` pixels begins that varies most, of those side by side."""
        height, width = self.coarse.shape[:2]
        tops, lefts = (range(0, max(size - count, 0) + 1, count) for size in (height, width))
        variance = {
            (top, left): self.coarse[top : top + count, left : left + count].var(axis=(0, 1)).sum()
            for top in tops
            for left in lefts
        }
        return max(variance, key=variance.get)
