"""Where the tissue is, and what spoils it: a thumbnail, and the tissue fraction of any region."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Real, UInt8

from ssldiff_jax.core import arrays
from ssldiff_jax.slides import quality, shown
from ssldiff_jax.slides import slide as slides

KINDS = tuple(quality.TINTS)
"""What a pixel is: background, tissue, or the rule that took it."""

_PICTURE_PX = 1024
_STRIP_ROWS = 256  # thumbnail rows read at once


@dataclasses.dataclass(frozen=True)
class TissueConfig:
    """What counts as tissue."""

    # Microns per pixel of the thumbnail.
    mpp: float
    # Otsu's threshold on HSV saturation (0…1) is kept between these two: the floor keeps a blank
    # slide blank, the ceiling keeps a slide full of tissue whole; a ceiling of 0 keeps greys too.
    min_saturation: float
    max_saturation: float
    # Pixels darker than this (luminance, 0…1) are black ink or scanner border; 0 keeps them.
    min_luminance: float
    # Pixels brighter than this (luminance, 0…1) are clouds, or no data, which is white; 1 keeps
    # them.
    max_luminance: float
    # Pen: absorbs red this much more, over the mean, than H&E can; 0 keeps it, as other stains and
    # rasters must.
    pen_chroma: float
    # Folds: this many times as dense as is typical of tissue of their colour; 0 keeps them.
    fold_density: float
    # Out of focus: detail as wide as after a Gaussian of this sigma, µm (2 is safe); 0 keeps it
    # and saves reading all tissue at blur_mpp.
    blur_um: float
    # Microns per pixel at which sharpness is measured.
    blur_mpp: float
    # Specks and holes below this radius vanish; 0 keeps them.
    smooth_radius_um: float


@dataclasses.dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue (True) or not, one value a thumbnail pixel, from the slide's top left corner; with
    `shares` fractions of tissue follow these, the part of every pixel that is tissue.

    Where the last pixels reach beyond the slide, `extent` is its height and width in pixels: what
    they say holds up to there, and beyond is no tissue."""

    mask: Bool[np.ndarray, "H W"]
    mpp: float
    shares: Float[np.ndarray, "H W"] | None = None
    extent: tuple[float, float] | None = None
    _integral: Real[np.ndarray, "H+1 W+1"] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        # A summed-area table (Crow 1984): four values give the tissue of any rectangle.
        values, kind = (self.mask, np.uint32) if self.shares is None else (self.shares, np.float64)
        sums = values.cumsum(axis=0, dtype=kind).cumsum(axis=1, dtype=kind)
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
        ends = self.extent or self.mask.shape
        (y0, dy), (x0, dx) = (
            _split(v, size, end) for v, size, end in zip((y, x), self.mask.shape, ends, strict=True)
        )
        sums = self._integral
        upper = sums[y0, x0] * (1 - dx) + sums[y0, x0 + 1] * dx
        lower = sums[y0 + 1, x0] * (1 - dx) + sums[y0 + 1, x0 + 1] * dx
        return upper * (1 - dy) + lower * dy


@dataclasses.dataclass(frozen=True, eq=False)
class Examined:
    """What a slide is made of: the tissue, and every thumbnail pixel's kind, a number in `KINDS`.

    `thumbnail` is smaller than `kinds` by a whole step where that has more than 1024 px a side.
    `allowed` is what a user's marks leave, whatever tissue is found; None without any. `polygons`
    is how many of each class these have.
    """

    mask: TissueMask
    kinds: UInt8[np.ndarray, "H W"]
    thumbnail: UInt8[np.ndarray, "h w 3"]
    allowed: TissueMask | None = None
    polygons: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def parts(self) -> dict[str, float]:
        """Fraction of each kind; they sum to 1."""
        counts = np.bincount(self.kinds.ravel(), minlength=len(KINDS)) / self.kinds.size
        return dict(zip(KINDS, counts.tolist(), strict=True))


def examine(slide: slides.Slide, config: TissueConfig) -> Examined:
    """Find tissue by saturation and what spoils it, with memory bounded by the thumbnail's.

    A slide coarser than `config.mpp` is looked at natively. Source of the threshold: Otsu 1979.
    """
    is_coarse = config.mpp < slide.mpp * (1 - slides.MPP_TOLERANCE)
    mpp = slide.mpp if is_coarse else config.mpp
    height, width = slide.shape_at(mpp)
    thumbnail = shown.read(slide, 0, 0, height, width, mpp=mpp)
    radius = round(config.smooth_radius_um / mpp)
    saturation, kinds = _pixel_rules(thumbnail, config)
    is_pen, is_black = (kinds == KINDS.index(name) for name in ("pen", "black"))
    if is_pen.any():  # specks are no strokes; black ink has a rim that is only grey
        kinds[is_pen & ~_open(is_pen | is_black, radius)] = 0
    counts = np.bincount(saturation[kinds == 0], minlength=256)
    threshold = np.clip(_otsu(counts) / 255, config.min_saturation, config.max_saturation)
    mask = (kinds == 0) & ((saturation > threshold * 255) | (config.max_saturation == 0))
    mask = _smooth(mask, radius)
    mask &= (kinds == 0) | is_black  # small black holes stay closed
    if config.fold_density > 0:
        fold = quality.folds(thumbnail, mask, config.fold_density, mpp)
        kinds[fold] = KINDS.index("fold")
        mask &= ~fold
    if config.blur_um > 0:
        blur = quality.is_blurred(slide, mask, mpp, config.blur_mpp, config.blur_um)
        kinds[blur] = KINDS.index("blur")
        mask &= ~blur
    kinds[mask] = KINDS.index("tissue")
    step = -(-max(mask.shape) // _PICTURE_PX)
    return Examined(TissueMask(mask, mpp), kinds, thumbnail[::step, ::step].copy())


def _pixel_rules(
    thumbnail: arrays.ImageUint8, config: TissueConfig
) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Saturation, and the kind of what one pixel alone gives away; 0 for the others."""
    saturation, kinds = (np.zeros(thumbnail.shape[:2], np.uint8) for _ in range(2))
    for top in range(0, len(thumbnail), _STRIP_ROWS):
        strip, kind = (array[top : top + _STRIP_ROWS] for array in (thumbnail, kinds))
        saturation[top : top + _STRIP_ROWS] = _saturation(strip)
        luminance = quality.luminance(strip)
        if config.max_luminance < 1:
            kind[luminance > config.max_luminance * 255] = KINDS.index("white")
        if config.pen_chroma > 0:
            kind[quality.is_ink(strip, config.pen_chroma)] = KINDS.index("pen")
        kind[luminance < config.min_luminance * 255] = KINDS.index("black")
    return saturation, kinds


def _split(value: np.ndarray, size: int, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Whole and fractional part of a position, kept before `end`, on a mask of this size."""
    value = np.clip(value, 0, min(end, size))
    whole = np.minimum(np.floor(value).astype(np.int64), size - 1)
    return whole, value - whole


def _saturation(image_uint8: arrays.ImageUint8) -> UInt8[np.ndarray, "H W"]:
    """HSV saturation, 0…255."""
    highest, lowest = image_uint8.max(axis=-1), image_uint8.min(axis=-1)
    chroma = (highest - lowest).astype(np.float32)
    # Black has no saturation: 0, not 0/0.
    return np.rint(255 * chroma / np.maximum(highest, 1)).astype(np.uint8)


def _otsu(counts: Int[np.ndarray, "256"]) -> int:
    """The value that parts a histogram with the largest variance between its halves (Otsu 1979);
    0 where all is of one value, or there is none."""
    # Not at the top: a machine that only computes need not have it.
    from skimage import filters

    return int(filters.threshold_otsu(hist=counts)) if np.count_nonzero(counts) > 1 else 0


def _smooth(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Open, then close, with a disc; the border counts as more of the same."""
    from scipy import ndimage
    from skimage import morphology

    if radius < 1:
        return mask
    dilated = ndimage.binary_dilation(_open(mask, radius), morphology.disk(radius))
    return ndimage.binary_erosion(dilated, morphology.disk(radius), border_value=1)


def _open(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    """Erode, then dilate, with a disc."""
    from scipy import ndimage
    from skimage import morphology

    if radius < 1:
        return mask
    eroded = ndimage.binary_erosion(mask, morphology.disk(radius), border_value=1)
    return ndimage.binary_dilation(eroded, morphology.disk(radius))
