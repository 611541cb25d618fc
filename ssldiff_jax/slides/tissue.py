"""Where the tissue is: a boolean thumbnail and the tissue fraction of any region."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32
from scipy import ndimage

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import slide as slides

_STRIP_ROWS = 256  # thumbnail rows read at once


@dataclasses.dataclass(frozen=True)
class TissueConfig:
    """What counts as tissue."""

    # Microns per pixel of the thumbnail.
    mpp: float = 8.0
    # Otsu's threshold on HSV saturation (0…1) is kept between these two: the floor keeps a blank
    # slide blank, the ceiling keeps a slide full of tissue whole.
    min_saturation: float = 0.05
    max_saturation: float = 0.10
    # Pixels darker than this (luminance, 0…1) are pen, folds or scanner border.
    min_luminance: float = 0.10
    # Specks and holes below this radius vanish; 0 keeps them.
    smooth_radius_um: float = 16.0


@dataclasses.dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue (True) or not, one value a thumbnail pixel, from the slide's top left corner."""

    mask: Bool[np.ndarray, "H W"]
    mpp: float
    _integral: UInt32[np.ndarray, "H+1 W+1"] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        sums = self.mask.cumsum(axis=0, dtype=np.uint32).cumsum(axis=1, dtype=np.uint32)
        object.__setattr__(self, "_integral", np.pad(sums, ((1, 0), (1, 0))))

    def fraction(self, top: int, left: int, height: int, width: int, *, mpp: float) -> float:
        """Return the part of a region that is tissue, 0…1; pixels beyond the slide are not.

        The numbers are pixels at `mpp`, the one the region is read with.
        """
        return float(self.fractions(np.array([top]), np.array([left]), (height, width), mpp)[0])

    def fractions(
        self,
        tops: Int[np.ndarray, "N"],
        lefts: Int[np.ndarray, "N"],
        shape: tuple[int, int],
        mpp: float,
    ) -> Float[np.ndarray, "N"]:
        """Return the tissue fraction of N regions of one shape (height, width)."""
        scale = mpp / self.mpp
        height, width = (size * scale for size in shape)
        y, x = tops * scale, lefts * scale
        inside = (
            self._area(y + height, x + width)
            - self._area(y, x + width)
            - self._area(y + height, x)
            + self._area(y, x)
        )
        return np.clip(inside / (height * width), 0, 1)

    def _area(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Tissue between the corner and (y, x); linear inside a pixel, which is then exact."""
        (y0, dy), (x0, dx) = (
            _split(v, size) for v, size in zip((y, x), self.mask.shape, strict=True)
        )
        sums = self._integral
        upper = sums[y0, x0] * (1 - dx) + sums[y0, x0 + 1] * dx
        lower = sums[y0 + 1, x0] * (1 - dx) + sums[y0 + 1, x0 + 1] * dx
        return upper * (1 - dy) + lower * dy


def tissue_mask(slide: slides.Slide, config: TissueConfig | None = None) -> TissueMask:
    """Find the tissue of a slide by saturation, with memory bounded by the thumbnail's.

    A slide coarser than `config.mpp` is looked at natively. Source of the threshold: Otsu 1979.
    """
    config = config or TissueConfig()
    is_coarse = config.mpp < slide.mpp * (1 - slides.MPP_TOLERANCE)
    mpp = slide.mpp if is_coarse else config.mpp
    height, width = slide.shape_at(mpp)
    saturation = np.zeros((height, width), np.uint8)
    is_bright = np.zeros((height, width), bool)
    for top in range(0, height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, height))
        strip = slide.read_region(top, 0, rows.stop - top, width, mpp=mpp)
        saturation[rows] = _saturation(strip)
        is_bright[rows] = strip @ np.float32([0.2126, 0.7152, 0.0722]) >= config.min_luminance * 255
    counts = np.bincount(saturation[is_bright], minlength=256)
    threshold = np.clip(_otsu(counts) / 255, config.min_saturation, config.max_saturation)
    mask = is_bright & (saturation > threshold * 255)
    return TissueMask(_smooth(mask, round(config.smooth_radius_um / mpp)), mpp)


def _split(value: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole and fractional part of a position, kept on the mask."""
    value = np.clip(value, 0, size)
    whole = np.minimum(np.floor(value).astype(np.int64), size - 1)
    return whole, value - whole


def _saturation(image_uint8: arrays.ImageUint8) -> UInt8[np.ndarray, "H W"]:
    """HSV saturation, 0…255."""
    highest, lowest = image_uint8.max(axis=-1), image_uint8.min(axis=-1)
    spread = (highest - lowest).astype(np.float32)
    return np.rint(255 * spread / np.maximum(highest, 1)).astype(np.uint8)


def _otsu(counts: Int[np.ndarray, "256"]) -> int:
    """Return the value that parts a histogram with the largest variance between its halves."""
    values = np.arange(len(counts))
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * values).cumsum()
    mean_below = sums / np.maximum(below, 1)
    mean_above = (sums[-1] - sums) / np.maximum(above, 1)
    return int(np.argmax(below * 1.0 * above * (mean_below - mean_above) ** 2))


def _smooth(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Open, then close, with a disc; the border counts as more of the same."""
    if radius < 1:
        return mask
    offsets = np.arange(-radius, radius + 1)
    disc = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    eroded = ndimage.binary_erosion(mask, disc, border_value=1)
    opened = ndimage.binary_dilation(eroded, disc)
    dilated = ndimage.binary_dilation(opened, disc)
    return ndimage.binary_erosion(dilated, disc, border_value=1)
