"""Figures of a large image against its reference, from pixels alone."""

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, patch_grid

_ONE_COLOUR = 1e-12  # squared grey levels: rounding
_OCTAVES = 8  # the finest; a shorter side of 1024 px has as many


def layout_correlation(
    image: arrays.ImageUint8, reference: arrays.ImageUint8, side: int
) -> dict[str, float | None]:
    """Pearson correlation of the cells' mean colours, each channel centred, with the reference,
    with the reference transposed, and the highest of all its orientations but the one it has.

    None where the cells of either have one colour, or there is one alone: no layout to find.
    "transposed" is absent where the region is not square; "rotated" is of three orientations then,
    else of seven.
    """
    rows, cols = reference.shape[0] // side, reference.shape[1] // side

    def means(of: arrays.ImageUint8) -> Float[np.ndarray, "rows cols 3"]:
        return patch_grid.cut_cells(of, side).mean(axis=(1, 2)).reshape(rows, cols, 3)

    layout, layout_reference = means(image), means(reference)
    # The published example was transposed: a layout is compared with all its orientations.
    result = {"identity": _correlation(layout, layout_reference)}
    mirrored = layout_reference[:, ::-1]
    # The first of the eight is the orientation it has.
    turned = [np.rot90(w, k) for w in (layout_reference, mirrored) for k in range(4)][1:]
    others = [_correlation(layout, w) for w in turned if w.shape == layout.shape]
    result["rotated"] = max((other for other in others if other is not None), default=None)
    if rows == cols:
        result["transposed"] = _correlation(layout, layout_reference.swapaxes(0, 1))
    return result


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    a, b = a - a.mean(axis=(0, 1)), b - b.mean(axis=(0, 1))
    of_a, of_b = np.sum(a**2), np.sum(b**2)
    if min(of_a, of_b) <= _ONE_COLOUR * a.size:
        return None
    return float(np.sum(a * b) / np.sqrt(of_a * of_b))


def variance_ratio(image: arrays.ImageUint8, reference: arrays.ImageUint8) -> float:
    """Variance of the pixels of each colour over the reference's; contrast was lost below 1."""
    own, of_reference = (
        float(pixels.astype(np.float64).var(axis=(0, 1)).mean()) for pixels in (image, reference)
    )
    # A reference of one colour has variance 0.
    return own / max(of_reference, 1e-12)


def spectrum_ratio(image: arrays.ImageUint8, reference: arrays.ImageUint8) -> list[float]:
    """Power of the luminance over the reference's, in octaves from the finest: 1 is alike, below 1
    is blurred there. Images have one size, a power of two or more on their shorter side."""
    spectrum, spectrum_reference = (_octaves(x) for x in (image, reference))
    return [float(a / max(b, 1e-12)) for a, b in zip(spectrum, spectrum_reference, strict=True)]


def _octaves(image: arrays.ImageUint8) -> list[float]:
    """Mean power of each octave of frequencies, the finest first; at least 2 cycles an image."""
    luminance = image.astype(np.float64).mean(axis=-1)
    # Without it the step from one border to the opposite one has power at all frequencies.
    window = np.outer(*(np.hanning(size) for size in luminance.shape))
    # The mean goes first: the window would spread it over the lowest frequencies.
    power = np.abs(np.fft.fft2((luminance - luminance.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, luminance.shape), indexing="ij"))
    lowest = 2 / min(luminance.shape)
    # 0.5 cycles a pixel is the finest there is.
    edges = [0.5 / 2**k for k in range(_OCTAVES + 1) if 0.5 / 2 ** (k + 1) >= lowest]
    return [power[(frequency > e / 2) & (frequency <= e)].mean() for e in edges]
