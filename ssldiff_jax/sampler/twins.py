"""Linear twins of an autoencoder: convolutions that stand for its decoder and its encoder where
colours alone count.

What a decoder makes of latents, averaged over the pixels of each latent or over parts of them, is
nearly linear in the latents around it. So a canvas can be led to the colours of a coarse image
without a network.
"""

import dataclasses
from collections.abc import Iterable

import jax
import numpy as np
from jaxtyping import Float, Num

from ssldiff_jax.core import arrays

REACH = 2
"""Latents around one that a twin sees on every side."""

_RIDGE = {"decode": 1e-4, "encode": 1e-3}
"""Parts of the mean variance of what is seen that are added to it, so that directions without any
get no weight. Of what colours do not say of latents most is noise: there more."""

Colours = Float[arrays.AnyArray, "h w Q"]
"""Of every latent: of each of its n × n parts, packed row by row, RGB in [−1, 1]."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearTwins:
    """colours ≈ decode ∗ latents + offset, and changes of latents ≈ encode ∗ changes of colours."""

    decode: Float[np.ndarray, "k k C Q"]
    offset: Float[np.ndarray, "Q"]
    encode: Float[np.ndarray, "k k Q C"]

    @classmethod
    def fit(cls, pairs: Iterable[tuple[arrays.Canvas, Colours]]) -> "LinearTwins":
        """By least squares, of latents and the colours that they decode to.

        Raises ValueError for fields that are all border.
        """
        sums = {name: _Sums() for name in _RIDGE}
        channels = num_colours = 0
        for latents, colours in pairs:
            if min(latents.shape[:2]) <= 2 * REACH:
                raise ValueError(
                    f"twins must be fitted to more than {2 * REACH} latents a side, got "
                    f"{latents.shape[0]} × {latents.shape[1]}"
                )
            channels, num_colours = latents.shape[-1], colours.shape[-1]
            sums["decode"].add(_around(latents), _inner(colours))
            sums["encode"].add(_around(colours), _inner(latents))
        decode, offset = sums["decode"].solved(_RIDGE["decode"])
        encode, _ = sums["encode"].solved(_RIDGE["encode"])
        side = 2 * REACH + 1
        return cls(
            decode.reshape(side, side, channels, num_colours),
            offset,
            encode.reshape(side, side, num_colours, channels),
        )


def apply(
    around: Float[arrays.AnyArray, "h2 w2 A"], kernel: Float[arrays.AnyArray, "k k A B"]
) -> Float[jax.Array, "h w B"]:
    """A twin's kernel over a field that is given with REACH more on every side."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        around[None], kernel, (1, 1), "VALID", dimension_numbers=dimensions, precision="highest"
    )[0]


def packed(image: Num[np.ndarray, "H W bands"], parts: int) -> Num[np.ndarray, "h w Q"]:
    """Colours of an image that has `parts` pixels a latent along each side."""
    height, width = (size // parts for size in image.shape[:2])
    bands = image.shape[2]
    cells = image.reshape(height, parts, width, parts, bands).swapaxes(1, 2)
    return cells.reshape(height, width, bands * parts**2)


class _Sums:
    """What least squares need of examples, added up: these never are in memory together."""

    def __init__(self):
        self.count, self._total = 0, None

    def add(self, seen: Float[np.ndarray, "N A"], wanted: Float[np.ndarray, "N B"]) -> None:
        # A column of ones for the offset.
        both = np.concatenate([seen, np.ones((len(seen), 1)), wanted], axis=1)
        products = both.T @ both
        self._total = products if self._total is None else self._total + products
        self.count, self._num_seen = self.count + len(seen), seen.shape[1]

    def solved(self, ridge: float) -> tuple[Float[np.ndarray, "A B"], Float[np.ndarray, "B"]]:
        """Weights and offset."""
        n, mean = self._num_seen, self._total / self.count
        # Around the means, so that the ridge holds back weights alone.
        centre, wanted = mean[n, :n], mean[n, n + 1 :]
        covariance = mean[:n, :n] - np.outer(centre, centre)
        both = mean[:n, n + 1 :] - np.outer(centre, wanted)
        covariance += ridge * max(np.trace(covariance) / n, 1e-12) * np.eye(n)
        weights = np.linalg.solve(covariance, both)
        return weights.astype(np.float32), (wanted - centre @ weights).astype(np.float32)


def _around(field: Float[np.ndarray, "h w A"]) -> Float[np.ndarray, "N M"]:
    """What lies around every place that is REACH inside, as a twin's kernel has it."""
    field = np.asarray(field, np.float64)
    height, width = (size - 2 * REACH for size in field.shape[:2])
    steps = range(2 * REACH + 1)
    seen = [field[i : i + height, j : j + width] for i in steps for j in steps]
    return np.concatenate(seen, axis=-1).reshape(height * width, -1)


def _inner(field: Float[np.ndarray, "h w A"]) -> Float[np.ndarray, "N A"]:
    inner = np.asarray(field, np.float64)[REACH:-REACH, REACH:-REACH]
    return inner.reshape(-1, inner.shape[-1])
