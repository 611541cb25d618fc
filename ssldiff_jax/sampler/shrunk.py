"""Images k times smaller: the means of squares of k × k pixels, and the smooth way back.

What the means lack is spread over the pixels by a quadratic spline that has these very means over
the squares, the derivative of the cubic spline through their running sums: no square shows its
border, and none takes from another.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int, Num, UInt

from ssldiff_jax.core import arrays
from ssldiff_jax.core import bands as bands_lib

Strip = UInt[np.ndarray, "_ _ bands"]
"""Some rows of an image."""

REACH = 6
"""Squares on either side that a spline is made of; those beyond have less than a thousandth."""


def factor_between(size: tuple[int, int], coarse: tuple[int, int], name: str) -> int:
    """How many times smaller a coarse image is than one of `size`, both (height, width) in px.

    Raises ValueError, which calls the coarse one `name`, where it is no whole number of times, or
    not the same in height and width.
    """
    factor = size[0] // coarse[0]
    if factor < 1 or (factor * coarse[0], factor * coarse[1]) != tuple(size):
        raise ValueError(
            f"{name} must have the image's {size[0]} × {size[1]} px over one whole number, got "
            f"{coarse[0]} × {coarse[1]} px"
        )
    return factor


def shrink(image: Num[arrays.AnyArray, "H W C"], factor: int) -> Float[arrays.AnyArray, "h w C"]:
    """Means of squares of `factor` pixels; the sides must be multiples of it."""
    height, width, channels = image.shape
    squares = image.reshape(height // factor, factor, width // factor, factor, channels)
    return squares.mean(axis=(1, 3))


def coarse_of(image: arrays.Pixels, factor: int) -> UInt[np.ndarray, "h w bands"]:
    """The image, shrunk. Raises ValueError where its sides are no multiples of the factor."""
    height, width = image.shape[:2]
    if height % factor or width % factor:
        raise ValueError(
            f"an image that is shrunk {factor} times must have multiples of it as sides, got "
            f"{height} × {width} px"
        )
    return np.round(shrink(image, factor)).astype(image.dtype)


@functools.cache
def taps(factor: int) -> Float[np.ndarray, "k T"]:
    """Weights of the squares −REACH … REACH of a line for each pixel of square 0."""
    squares = np.arange(-2 * REACH, 2 * REACH + 1)
    edges = np.arange(factor + 1) / factor - 0.5
    # Means over each pixel of the quadratic B-splines around all squares …
    pixels = np.diff(_integral(edges[:, None] - squares), axis=0) * factor
    # … whose means over whole squares are (1, 4, 1) / 6; of that the inverse, which falls by
    # √3 − 2 a square (Unser, Aldroubi and Eden 1993).
    apart = np.abs(np.subtract.outer(squares, np.arange(-REACH, REACH + 1)))
    weights = pixels @ (np.sqrt(3) * (np.sqrt(3) - 2) ** apart)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _integral(x: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Of the quadratic B-spline around 0, up to x."""
    rising, middle, falling = (np.clip(x, low, low + 1) for low in (-1.5, -0.5, 0.5))
    first, last = (rising + 1.5) ** 3 / 6, (1 - (1.5 - falling) ** 3) / 6
    return first + 0.75 * middle - middle**3 / 3 + 1 / 3 + last


def spread(around: Float[arrays.AnyArray, "h2 w2 C"], factor: int) -> arrays.AnyArray:
    """The spline of means (h, w, C), given with REACH more on every side; `factor` pixels a
    square."""
    if factor == 1:
        return around[REACH:-REACH, REACH:-REACH]
    return _along(_along(around, factor).swapaxes(0, 1), factor).swapaxes(0, 1)


def _along(around: Float[arrays.AnyArray, "h2 w C"], factor: int) -> arrays.AnyArray:
    count, weights = len(around) - 2 * REACH, taps(factor)
    parts = (
        weights[:, i, None, None] * around[i : i + count, None] for i in range(weights.shape[1])
    )
    return sum(parts).reshape(count * factor, *around.shape[1:])


def mirrored(at: Int[np.ndarray, "*S"], size: int) -> Int[np.ndarray, "*S"]:
    """Places on a line of `size` squares, brought inside by mirrors at its border: beyond the last
    square it comes again."""
    at = at % (2 * size)
    return np.minimum(at, 2 * size - 1 - at)


def exchanged(
    strips: Iterable[Strip],
    coarse: UInt[np.ndarray, "h w bands"],
    factor: int,
    kind: bands_lib.Kind = bands_lib.RGB_8,
) -> Iterator[Strip]:
    """An image of a `kind` from top to bottom, the means of its squares made those of the coarse
    image, but for rounding and what lies beyond black and white. What is held at a time is one
    strip and REACH rows of squares."""
    waiting = np.zeros((0, coarse.shape[1] * factor, kind.count), kind.dtype)
    missing: dict[int, Float[np.ndarray, "w bands"]] = {}
    done = begun = 0  # rows of squares
    for strip in strips:
        waiting = np.concatenate([waiting, strip])
        whole = len(waiting) // factor + done
        fresh = waiting[(begun - done) * factor : (whole - done) * factor]
        if len(fresh):
            lacks = coarse[begun:whole].astype(np.float32) - shrink(fresh, factor)
            missing |= dict(zip(range(begun, whole), lacks, strict=True))
        begun = whole
        ready = begun if begun == len(coarse) else max(begun - REACH, done)
        if ready == done:
            continue
        rows = mirrored(np.arange(done - REACH, ready + REACH), len(coarse))
        cols = mirrored(np.arange(-REACH, coarse.shape[1] + REACH), coarse.shape[1])
        around = np.stack([missing[row] for row in rows.tolist()])[:, cols]
        count = (ready - done) * factor
        yield kind.rounded(waiting[:count] + spread(around, factor))
        waiting, done = waiting[count:], ready
        missing = {row: lack for row, lack in missing.items() if row >= done - REACH}


def correlation(
    strips: Iterable[Strip], coarse: UInt[np.ndarray, "h w bands"], factor: int
) -> float:
    """Pearson's, of an image, shrunk, with a coarse image: over all its pixels and colours. Strips
    are whole rows of squares. 0 where either has one colour."""
    top, sums, grey = 0, np.zeros(5), np.iinfo(coarse.dtype).max / 2
    for strip in strips:
        means = shrink(strip, factor)
        # Around middle grey, so that squares do not lose digits.
        a, b = means.ravel() - grey, coarse[top : top + len(means)].ravel() - grey
        sums += np.array([a.sum(), b.sum(), a @ a, b @ b, a @ b])
        top += len(means)
    of_a, of_b, a_a, b_b, a_b = sums / coarse.size
    spreads = (a_a - of_a**2) * (b_b - of_b**2)
    return float((a_b - of_a * of_b) / np.sqrt(spreads)) if spreads > 0 else 0.0
