"""Whether a large image has the shapes of its reference where the reference has them: maps of
classes, structure, edges and fine texture, with intervals over blocks."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from scipy import fft, ndimage

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation.metrics import bootstrap, large_image

PX = 8
"""Side of the squares whose classes, edges and power are compared: an outline that lies within it
is in its place."""
_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, the finest first
_SSIM_RADIUS, _SSIM_SIGMA = 5, 1.5
_SSIM_CONSTANTS = (0.01 * 255) ** 2, (0.03 * 255) ** 2
SSIM_LEAST_PX = PX * (2 * _SSIM_RADIUS + 2)
"""Side of an image that holds one window after it was moved by a place."""
_EDGE_SIGMA = 2.0  # px: grain is no edge
FINEST = "periods_of_2_to_4_px"
_BANDS = {
    FINEST: (1 / 4, 1 / 2),
    "periods_around_4_px": (1 / 4 / 2**0.5, 1 / 4 * 2**0.5),
    "periods_of_4_to_8_px": (1 / 8, 1 / 4),
}
"""Frequencies, cycles/px: an octave each."""

Map = Shaped[np.ndarray, "_h _w _K"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """Figures of two images that are functions of sums over places.

    Attributes:
        see: what of an image is compared, a map (h, w, K).
        px: pixels of an image for one place of that map; `PX` is a multiple of it.
        places: two such maps, the generated or otherwise doubtful one first → maps of any
            resolutions, whose sums over places the figures are made of.
        figures: by name; each takes the sums of all maps, joined.
    """

    see: Callable[[arrays.ImageUint8], Map]
    px: int
    places: Callable[[Map, Map], Sequence[Map]]
    figures: Mapping[str, bootstrap.Figure]


def compare(measure: Measure, pairs: Sequence[large_image.Pair], side: int) -> dict[str, Any]:
    """Every figure with its interval: of the `generated` images; of the regions themselves moved by
    `PX` px (`real_moved`), which what is in its place comes near to; and of every region with
    another (`other_region`; of a single one, itself turned by half), which is chance."""
    generated, real = ([measure.see(i) for i in images] for images in _sides(pairs))
    step = PX // measure.px
    # The next region of the list; turned, a region has no outline where it had one.
    others = [*real[1:], real[0]] if len(real) > 1 else [real[0][::-1, ::-1]]
    comparisons = {
        "generated": list(zip(generated, real, strict=True)),
        "real_moved": [(seen[step:, step:], seen[:-step, :-step]) for seen in real],
        "other_region": list(zip(others, real, strict=True)),
    }
    blocks = bootstrap.Blocks.of([pair.reference.shape[:2] for pair in pairs], side)
    sums = {kind: _sums(measure, both, blocks) for kind, both in comparisons.items()}
    return {
        name: {
            kind: dataclasses.asdict(bootstrap.estimate(sums[kind], figure, blocks.name))
            for kind in comparisons
        }
        for name, figure in measure.figures.items()
    }


def values(measure: Measure, pairs: Sequence[large_image.Pair]) -> dict[str, float | None]:
    """Every figure of the generated images alone; None of one that these do not define."""
    sides = ([measure.see(i) for i in images] for images in _sides(pairs))
    blocks = bootstrap.Blocks(((1, 1),) * len(pairs), "images")
    sums = _sums(measure, list(zip(*sides, strict=True)), blocks).sum(axis=0, keepdims=True)
    of_all = {name: float(figure(sums)[0]) for name, figure in measure.figures.items()}
    return {name: value if np.isfinite(value) else None for name, value in of_all.items()}


def _sides(pairs: Sequence[large_image.Pair]):
    return [pair.image for pair in pairs], [pair.reference for pair in pairs]


def _sums(
    measure: Measure, both: Sequence[tuple[Map, Map]], blocks: bootstrap.Blocks
) -> Float[np.ndarray, "B K"]:
    """Of the blocks of all images, below each other."""
    rows = []
    for number, (a, b) in enumerate(both):
        # Regions of one run may differ in size.
        height, width = np.minimum(a.shape[:2], b.shape[:2])
        maps = measure.places(a[:height, :width], b[:height, :width])
        rows.append(np.concatenate([blocks.sums(number, each) for each in maps], axis=1))
    return np.concatenate(rows)


def pool(image: Num[np.ndarray, "H W *K"], px: int) -> Float[np.ndarray, "h w *K"]:
    """Means over squares of `px`; what is left at the right and the bottom is cut off."""
    rows, cols = image.shape[0] // px, image.shape[1] // px
    squares = image[: rows * px, : cols * px].reshape(rows, px, cols, px, *image.shape[2:])
    return squares.mean(axis=(1, 3), dtype=np.float64)


def _grey(image_uint8: arrays.ImageUint8) -> Float[np.ndarray, "H W"]:
    """The mean of the three colours, 0…255."""
    return image_uint8.mean(axis=-1, dtype=np.float64)


def products(
    a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 6"]:
    """What sums of `pearson` are of."""
    return np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=-1)


def pearson(sums: Float[np.ndarray, "R 6"]) -> Float[np.ndarray, "R"]:
    """The correlation of two maps, from sums of their `products`."""
    return _correlation(_covariances(sums))


def _covariances(sums: Float[np.ndarray, "R 6"]) -> Float[np.ndarray, "R 3"]:
    """n² times the variances of two maps and their covariance; variances that are rounding are
    0."""
    n, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    variances = [
        np.where(n * xx - x * x > 1e-9 * n * xx, n * xx - x * x, 0) for x, xx in ((a, aa), (b, bb))
    ]
    return np.stack([*variances, n * ab - a * b], axis=-1)


def _correlation(covariances: Float[np.ndarray, "R 3"]) -> Float[np.ndarray, "R"]:
    of_a, of_b, of_both = np.moveaxis(covariances, -1, 0)
    return ratio(of_both, np.sqrt(of_a * of_b))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN over 0."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def class_maps(
    classify: Callable[[arrays.ImageUint8], Int[np.ndarray, "H W"]], names: Sequence[str]
) -> Measure:
    """Intersection over union of maps of classes: in each square of `PX`, the class that most of
    its pixels have. Of each class, and their `mean` over the classes that either map has."""
    count = len(names)

    def see(image_uint8: arrays.ImageUint8) -> Map:
        share = pool(np.eye(count)[classify(image_uint8)], PX)
        return np.eye(count, dtype=bool)[share.argmax(axis=-1)]

    def places(a: Map, b: Map) -> Sequence[Map]:
        return [np.concatenate([a & b, a | b], axis=-1).astype(np.float64)]

    def of_class(sums: np.ndarray, k: int) -> np.ndarray:
        return ratio(sums[..., k], sums[..., count + k])

    def mean(sums: np.ndarray) -> np.ndarray:
        each = ratio(sums[..., :count], sums[..., count:])
        there = np.isfinite(each)
        return ratio(np.where(there, each, 0).sum(axis=-1), there.sum(axis=-1).astype(float))

    by_class = {name: functools.partial(of_class, k=k) for k, name in enumerate(names)}
    return Measure(see, PX, places, {"mean": mean} | by_class)


def num_scales(sizes: Sequence[tuple[int, int]]) -> int:
    """Scales of MS-SSIM that the shortest side of images, less the place that regions are moved
    by, has a window for: five at most, 0 below `SSIM_LEAST_PX`."""
    shortest, window = min(min(size) for size in sizes) // PX - 1, 2 * _SSIM_RADIUS + 1
    return sum(shortest // 2**k >= window for k in range(len(_SSIM_WEIGHTS)))


def ms_ssim(sizes: Sequence[tuple[int, int]]) -> Measure:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) of grey images that are
    means over squares of `PX`: windows of 11 × 11 places, and half as many places a side from scale
    to scale. Moved by less than a place, finer ones would be opposite where texture is.

    The scales are those of `num_scales`, with their weights scaled to 1. Of several images, each
    scale's means are over all of them.

    Raises ValueError for images that are smaller than one window.
    """
    scales = num_scales(sizes)
    if not scales:
        raise ValueError(
            f"MS-SSIM needs images of {SSIM_LEAST_PX} px or more a side, got "
            f"{min(min(size) for size in sizes)}"
        )
    weights = np.array(_SSIM_WEIGHTS[:scales]) / sum(_SSIM_WEIGHTS[:scales])

    def see(image_uint8: arrays.ImageUint8) -> Map:
        return pool(_grey(image_uint8), PX)[..., None]

    def places(a: Map, b: Map) -> Sequence[Map]:
        maps = []
        for scale in range(scales):
            luminance, structure = _ssim_maps(a[..., 0], b[..., 0])
            # Luminance is compared at the last scale alone.
            similarity = structure * luminance if scale == scales - 1 else structure
            maps.append(np.stack([similarity, np.ones_like(similarity)], axis=-1))
            a, b = pool(a, 2), pool(b, 2)
        return maps

    def figure(sums: np.ndarray) -> np.ndarray:
        # Below 0, where structures are opposite, no root is real.
        means = np.maximum(ratio(sums[..., ::2], sums[..., 1::2]), 0)
        return np.prod(means**weights, axis=-1)

    return Measure(see, PX, places, {"ms_ssim": figure})


def _ssim_maps(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]):
    """(luminance, contrast and structure) in every window that lies within the image."""
    inside = np.s_[_SSIM_RADIUS:-_SSIM_RADIUS, _SSIM_RADIUS:-_SSIM_RADIUS]
    mean = lambda x: ndimage.gaussian_filter(x, _SSIM_SIGMA, radius=_SSIM_RADIUS)[inside]
    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = _SSIM_CONSTANTS
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def edges() -> Measure:
    """Agreement of edges in squares of `PX`, from the gradient of grey levels smoothed by 2 px.

    Each pixel has the vector of its gradient's length at twice its angle: light on dark is as dark
    on light. `orientation` is the correlation of the two images' mean vectors of all squares: 1
    where edges are as strong and lie as they should, 0 by chance, whatever direction most edges of
    both have. `strength` is that of the gradient's mean length alone.
    """

    def see(image_uint8: arrays.ImageUint8) -> Map:
        grey = _grey(image_uint8)
        down, right = (
            ndimage.gaussian_filter(grey, _EDGE_SIGMA, order=order) for order in ((1, 0), (0, 1))
        )
        length = np.hypot(down, right)
        # (right + i·down)² / length, by its parts; no direction where there is no edge.
        safe = np.maximum(length, 1e-9)
        doubled = [(right**2 - down**2) / safe, 2 * right * down / safe]
        return pool(np.stack([*doubled, length], axis=-1), PX)

    def places(a: Map, b: Map) -> Sequence[Map]:
        return [products(a[..., k], b[..., k]) for k in range(3)]

    def orientation(sums: np.ndarray) -> np.ndarray:
        # Both parts of the vectors, each around its own mean.
        return _correlation(_covariances(sums[..., :6]) + _covariances(sums[..., 6:12]))

    def strength(sums: np.ndarray) -> np.ndarray:
        return pearson(sums[..., 12:])

    return Measure(see, PX, places, {"orientation": orientation, "strength": strength})


def fine_power() -> Measure:
    """Power of the grey image over the reference's in three octaves: periods of 2 to 4 px, around
    4 px (2.8 to 5.7) and of 4 to 8 px. 1 is alike, below 1 is blurred."""

    def see(image_uint8: arrays.ImageUint8) -> Map:
        # Cosines: mirrored at its borders an image has no step there, which is of all periods.
        waves = fft.dctn(_grey(image_uint8), norm="ortho")
        lengths = [np.arange(length) / (2 * length) for length in waves.shape]
        frequency = np.hypot(*np.meshgrid(*lengths, indexing="ij"))
        bands = [
            pool(
                fft.idctn(waves * ((frequency > low) & (frequency <= high)), norm="ortho") ** 2, PX
            )
            for low, high in _BANDS.values()
        ]
        return np.stack(bands, axis=-1)

    def places(a: Map, b: Map) -> Sequence[Map]:
        return [np.concatenate([a, b], axis=-1)]

    def of_band(sums: np.ndarray, k: int) -> np.ndarray:
        return ratio(sums[..., k], sums[..., len(_BANDS) + k])

    figures = {name: functools.partial(of_band, k=k) for k, name in enumerate(_BANDS)}
    return Measure(see, PX, places, figures)
