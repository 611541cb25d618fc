"""Nuclei of stained tissue, segmented by their outlines: another rule than the one that labels
pixels by their colour."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from ssldiff_jax.core import arrays
from ssldiff_jax.evaluation.metrics import structure

MOST_MPP = 1.0
"""µm/px: of coarser images a nucleus is a few pixels, without an outline."""
# Optical densities of haematoxylin and eosin in red and green (Ruifrok and Johnston 2001). In blue
# that of eosin differs most from slide to slide, so that collagen would pass for haematoxylin.
_STAINS = np.array([[0.65, 0.70], [0.07, 0.99]])
_AREA_UM2 = 8.0, 300.0  # of a pyknotic nucleus, and of a large one of a tumour
_AROUND_UM = 10.0  # sigma of what is local: a nucleus and the cell around it
_BLUR_UM = 0.5
_APART_UM = 2.5  # of the middles of two nuclei that touch
_RIM_UM = 1.0  # on either side of an outline
# Of the haematoxylin inside an outline over that outside. Grain has less, stained cytoplasm too.
_CONTRAST = 0.15


def measure(mpp: float, side: int) -> structure.Measure:
    """Nuclei of cells of `side` px: correlation of their `count` and of the share of `area` that
    they cover with the reference's, and `count_ratio`, how many there are over the reference's.

    Raises ValueError for another scale than nuclei can be seen at.
    """
    if not 0 < mpp <= MOST_MPP:
        raise ValueError(f"nuclei need 0 < mpp <= {MOST_MPP:g} µm/px, got mpp={mpp:g}")

    def see(image_uint8: arrays.ImageUint8) -> structure.Map:
        labels = segment(image_uint8, mpp)
        middles = np.zeros(labels.shape)
        numbers = np.arange(1, labels.max() + 1)
        for middle in ndimage.center_of_mass(labels > 0, labels, numbers):
            middles[tuple(np.round(middle).astype(int))] += 1
        return np.stack([labels > 0, middles], axis=-1).astype(np.float32)

    def places(a: structure.Map, b: structure.Map) -> Sequence[structure.Map]:
        a, b = (structure.pool(each, side) for each in (a, b))
        # Means of a cell: as many to a pixel as there are in all.
        return [structure.products(a[..., k], b[..., k]) for k in range(2)]

    return structure.Measure(
        see,
        1,
        places,
        {
            "area": lambda sums: structure.pearson(sums[..., :6]),
            "count": lambda sums: structure.pearson(sums[..., 6:]),
            "count_ratio": lambda sums: structure.ratio(sums[..., 7], sums[..., 8]),
        },
    )


def segment(image_uint8: arrays.ImageUint8, mpp: float) -> Int[np.ndarray, "H W"]:
    """The number of the nucleus that each pixel is in, 0 outside: haematoxylin above its
    surroundings, parted by a watershed where nuclei touch; only what has the area of a nucleus and
    more haematoxylin inside its outline than outside."""
    # Not at the top: a machine that only computes need not have it.
    import skimage.feature
    import skimage.morphology
    import skimage.segmentation

    px = lambda micrometres: micrometres / mpp
    stain = ndimage.gaussian_filter(haematoxylin(image_uint8), px(_BLUR_UM))
    excess = stain - ndimage.gaussian_filter(stain, px(_AROUND_UM))
    mask = excess > _CONTRAST / 2
    disk = skimage.morphology.disk(max(round(px(_BLUR_UM)), 1))
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, disk))
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), px(_BLUR_UM))
    apart, (parts, _) = max(round(px(_APART_UM)), 1), ndimage.label(mask)
    peaks = skimage.feature.peak_local_max(depth, min_distance=apart, labels=parts)
    seeds = np.zeros(mask.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = skimage.segmentation.watershed(-depth, seeds, mask=mask)
    labels = _at_half_height(labels, excess)
    return _numbered(labels, _plausible(labels, stain, mpp))


def _at_half_height(
    labels: Int[np.ndarray, "H W"], excess: Float[np.ndarray, "H W"]
) -> Int[np.ndarray, "H W"]:
    """The objects without the blurred border that a dark one has beyond its outline."""
    mean = ndimage.mean(excess, labels, np.arange(labels.max() + 1))
    # A pale middle is of the nucleus too.
    mask = ndimage.binary_fill_holes((labels > 0) & (excess >= mean[labels] / 2))
    return np.where(mask, labels, 0)


def haematoxylin(image_uint8: arrays.ImageUint8) -> Float[np.ndarray, "H W"]:
    """Its amount in every pixel, where haematoxylin and eosin alone absorb (Beer and Lambert)."""
    # Half a grey level: black has a density too.
    density = -np.log10((image_uint8 + 0.5) / 255.5)
    return density[..., :2] @ np.linalg.inv(_STAINS)[:, 0]


def _plausible(
    labels: Int[np.ndarray, "H W"], stain: Float[np.ndarray, "H W"], mpp: float
) -> Bool[np.ndarray, "N"]:
    """Of each object, from 1, whether it has the area and the outline of a nucleus."""
    numbers = np.arange(1, labels.max() + 1)
    width, inside = _RIM_UM / mpp, ndimage.distance_transform_edt(labels > 0)
    to_nearest, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    # Of glass and cytoplasm nearby, not of another nucleus; every object has its own part.
    outer = np.where((to_nearest > 0) & (to_nearest <= width), labels[tuple(nearest)], 0)
    inner = np.where((inside > 0) & (inside <= width), labels, 0)
    mean = functools.partial(ndimage.mean, stain, index=numbers)
    area = np.bincount(labels.ravel(), minlength=len(numbers) + 1)[1:] * mpp**2
    # One that others enclose has no outer rim: NaN, which is no contrast.
    with np.errstate(invalid="ignore", divide="ignore"):
        contrast = mean(labels=inner) - mean(labels=outer)
    return (area >= _AREA_UM2[0]) & (area <= _AREA_UM2[1]) & (contrast >= _CONTRAST)


def _numbered(
    labels: Int[np.ndarray, "H W"], kept: Bool[np.ndarray, "N"]
) -> Int[np.ndarray, "H W"]:
    """The objects that are kept, numbered from 1 without a gap."""
    numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
    return numbers[labels]
