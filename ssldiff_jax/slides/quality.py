"""What spoils a stained slide: ink, folds and blur, found by how much light the dyes absorb."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import shown
from ssldiff_jax.slides import slide as slides

TINTS = {
    "background": (245, 245, 245),
    "tissue": None,
    "pen": (0, 90, 255),
    "blur": (255, 160, 0),
    "fold": (0, 170, 60),
    "black": (0, 0, 0),
    "white": (0, 200, 220),
}
"""Every kind of pixel, in the order of their numbers, and its colour in a picture."""

# Absorbance of every level (Beer–Lambert); 0 counts as 1, which keeps it finite.
_ABSORBED = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
_LEVELS = 200  # of absorbance, for one: 0.005 each
_STRIP_ROWS = 256
_INK_LEAST = 0.15  # absorbance below which a colour is too pale to have a hue
_BLACK_INK_LEAST, _BLACK_INK_SPREAD = 0.3, 0.2  # absorbance, and between channels over its mean
_FOLD_UM = 40.0  # nuclei and gaps are averaged over this
_FOLD_EDGE = 0.65  # of the density that makes a fold, and belongs to one where it touches it
_FEW = 50  # pixels of a colour that are too few for a typical value
_FOCUS_UM = 128.0
_FOCUS_BLOCK = 4  # least finer pixels on the side of a thumbnail pixel
_FOCUS_PIXELS = 2**22  # read at once


def luminance(image_uint8: arrays.ImageUint8) -> Float[np.ndarray, "H W"]:
    """Rec. 709 luma of pixels as they are stored, 0…255."""
    return image_uint8 @ np.float32([0.2126, 0.7152, 0.0722])


def is_ink(image_uint8: arrays.ImageUint8, chroma: float) -> Bool[np.ndarray, "H W"]:
    """Find blue, green and black ink by colours that no mixture of hematoxylin and eosin has.

    Both dyes absorb green most, and red at most 1.2 times the mean of the channels (Ruifrok &
    Johnston 2001); ink does where it absorbs red `chroma` more, over the mean, than the mean or
    than green. Ratios of absorbances, which do not depend on the amount of dye: van der Laak et al.
    2000. Black ink absorbs all alike. Red ink has the colour of blood and cannot be distinguished
    from it.
    """
    red, green, blue = (_ABSORBED[image_uint8[..., channel]] for channel in range(3))
    mean = (red + green + blue) / 3
    coloured = (mean > _INK_LEAST) & (red - np.minimum(green, mean) > chroma * mean)
    chroma_range = np.maximum(np.maximum(red, green), blue) - np.minimum(
        np.minimum(red, green), blue
    )
    return coloured | ((mean > _BLACK_INK_LEAST) & (chroma_range < _BLACK_INK_SPREAD * mean))


def folds(
    image_uint8: arrays.ImageUint8, mask: Bool[np.ndarray, "H W"], density: float, mpp: float
) -> Bool[np.ndarray, "H W"]:
    """Find folded tissue: `density` times as dense as what is typical of its colour.

    Layers of one tissue absorb the sum and keep their colour (Beer–Lambert), so that a fold is
    dark and saturated (Palokangas et al. 2007) among tissue of its own colour, where nuclei
    crowded together are not. What touches a fold and is nearly as dense belongs to it (Kothari et
    al. 2013).
    """
    # Not at the top: a machine that only computes need not have it.
    from scipy import ndimage

    colour, level = _colour_and_level(image_uint8, mask, max(1, round(_FOLD_UM / mpp)) // 2)
    ratio = level / _typical(colour[mask], level[mask])[colour]
    number, count = ndimage.label(mask & (ratio > _FOLD_EDGE * density))
    is_fold = np.zeros(count + 1, bool)
    is_fold[number[ratio > density]] = True
    is_fold[0] = False
    return is_fold[number]


def is_blurred(
    slide: slides.Slide, mask: Bool[np.ndarray, "H W"], mpp: float, blur_mpp: float, blur_um: float
) -> Bool[np.ndarray, "H W"]:
    """Find tissue whose finest detail is as wide as after a Gaussian of sigma `blur_um`.

    Detail blurred by sigma has squared gradients of sigma² / 2 times its squared Laplacian,
    whatever its contrast. `mask` is at `mpp`; the slide is read where it is set, at about
    `blur_mpp`. Nothing is found in a slide that is too coarse. Noise counts as detail.
    """
    from scipy import ndimage

    finest = int(mpp / (slide.mpp * (1 - slides.MPP_TOLERANCE)))
    block = min(round(mpp / blur_mpp), finest)
    if block < _FOCUS_BLOCK:
        return np.zeros_like(mask)
    gradients, laplacians = (np.zeros(mask.shape, np.float32) for _ in range(2))
    rows = max(1, _FOCUS_PIXELS // (mask.shape[1] * block**2))
    for top in range(0, len(mask), rows):
        columns = np.flatnonzero(mask[top : top + rows].any(axis=0))
        if columns.size:
            here = (slice(top, min(top + rows, len(mask))), slice(columns[0], columns[-1] + 1))
            size = [(part.stop - part.start) * block for part in here]
            place = (top * block, columns[0] * block, *size)
            strip = shown.read(slide, *place, mpp=mpp / block)
            gradients[here], laplacians[here] = _detail(luminance(strip), block)
    window = max(1, round(_FOCUS_UM / mpp))
    gradient, laplacian = (
        ndimage.uniform_filter(energy * mask, window, mode="constant")
        for energy in (gradients, laplacians)
    )
    return mask & (2 * gradient * (mpp / block) ** 2 > blur_um**2 * laplacian)


def tinted(
    image_uint8: arrays.ImageUint8, kinds: UInt8[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return pixels with each kind but tissue in its own tint, the background pale."""
    out = image_uint8.astype(np.float32)
    for kind, tint in enumerate(TINTS.values()):
        if tint is not None:
            is_kind = kinds == kind
            weight = 0.75 if kind == 0 else 0.6
            out[is_kind] = (1 - weight) * out[is_kind] + weight * np.float32(tint)
    return np.rint(out).astype(np.uint8)


def _colour_and_level(
    image_uint8: arrays.ImageUint8, mask: Bool[np.ndarray, "H W"], radius: int
) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Tenths of red's absorbance over the mean, and the mean in `_LEVELS`; of tissue nearby."""
    from scipy import ndimage

    colour, level = (np.zeros(mask.shape, np.uint8) for _ in range(2))
    for top in range(0, len(mask), _STRIP_ROWS):
        first = max(0, top - radius)
        rows = slice(first, top + _STRIP_ROWS + radius)
        inner = slice(top - first, top - first + _STRIP_ROWS)
        is_tissue, pixels = mask[rows].astype(np.float32), image_uint8[rows]
        planes = [is_tissue, *(_ABSORBED[pixels[..., c]] * is_tissue for c in range(3))]
        weight, red, green, blue = (
            ndimage.uniform_filter(plane, 2 * radius + 1, mode="constant")[inner]
            for plane in planes
        )
        # White absorbs nothing, and beyond the tissue nothing is weighed.
        mean = np.maximum(red + green + blue, 1e-6) / 3
        colour[top : top + _STRIP_ROWS] = np.rint(10 * red / mean)
        levels = _LEVELS * mean / np.maximum(weight, 1e-6)
        level[top : top + _STRIP_ROWS] = np.minimum(np.rint(levels), 255)
    return colour, level


def _typical(
    colour: UInt8[np.ndarray, "N"], level: UInt8[np.ndarray, "N"]
) -> Float[np.ndarray, "256"]:
    """Median level of each colour; infinite for a rare one, whose median would be unreliable."""
    counts = np.bincount(colour.astype(np.int64) * 256 + level, minlength=256**2).reshape(256, 256)
    below = counts.cumsum(axis=1)
    median = np.maximum(np.argmax(2 * below >= below[:, -1:], axis=1), 1)
    return np.where(below[:, -1] < _FEW, np.inf, median).astype(np.float32)


def _detail(
    luma: Float[np.ndarray, "h w"], block: int
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Mean squared gradient and Laplacian inside each block, apart from its border."""
    blocks = luma.reshape(luma.shape[0] // block, block, -1, block)
    middle = blocks[:, 1:-1, :, 1:-1]
    up, down = blocks[:, :-2, :, 1:-1], blocks[:, 2:, :, 1:-1]
    left, right = blocks[:, 1:-1, :, :-2], blocks[:, 1:-1, :, 2:]
    gradient = ((down - up) ** 2 + (right - left) ** 2) / 4
    laplacian = (up + down + left + right - 4 * middle) ** 2
    return gradient.mean(axis=(1, 3)), laplacian.mean(axis=(1, 3))
