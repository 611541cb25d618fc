"""What a region shows, measured in its pixels: parts of classes in the whole and in quadrants.

Labels that need no one to give them: land cover by a scene's infrared band, or the colours of a
stain or of the Earth from space.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Real

Bands = Real[np.ndarray, "H W C"]
ClassMap = Int[np.ndarray, "H W"]
Name = Literal["landcover", "stain", "earth"]

ANNOTATIONS, UNMARKED = "annotations", "unmarked"
"""Classes that a user marks by polygons, which are no measure of pixels; and what lies in none."""

# Row by row, as quadrant_parts has them.
QUADRANTS = ("north-west", "north-east", "south-west", "south-east")
CLASSES: Mapping[str, tuple[str, ...]] = {
    "landcover": ("water", "vegetation", "bare"),
    "stain": ("nuclei", "stroma", "empty"),
    "earth": ("ocean", "shallows", "ice", "desert", "forest"),
}
"""By what is measured."""
LOPSIDED: Mapping[str, float] = {
    "landcover": 0.2, "stain": 0.08, "earth": 0.2, ANNOTATIONS: 0.2,
}  # fmt: skip
"""From this difference between two halves on, a caption names the side. Parts of quadrants vary
less within a slide (the demo's: a standard deviation of .15 to .19) than over the Earth (.17 to
.42)."""
OF_COLOURS = ("stain", "earth")
"""Measured in red, green and blue alone."""

# Of normalised differences (infrared − red, green − infrared): between these and zero lie dry
# plants and wet ground.
_PLANTS, _WATER = 0.15, 0.05
# Haematoxylin of skimage's stain matrix, and the luminance above which glass shows.
_NUCLEI, _GLASS = 0.06, 0.88
# Luminances of the Blue Marble, 0…255: the sea is drawn lighter where it is shallow; deserts lie
# above woods; below the last one all is the darkest sea.
_SHALLOWS, _SAND, _ABYSS = 40, 80, 8
# Red over green of soil without plants, as in Australia, where it is dark.
_RED_SOIL = 1.3
# The least of a snow's three colours, and the most by which its red exceeds its blue.
_SNOW, _WARM = 120, 40


def land_cover(bands: Bands) -> ClassMap:
    """Water, plants or bare ground of red, green, blue and infrared (McFeeters 1996, Rouse 1974).

    Raises ValueError where there is no fourth band.
    """
    if bands.shape[-1] < 4:
        raise ValueError(
            f"landcover needs four bands with infrared as the last, got {bands.shape[-1]}"
        )
    red, green, _, infrared = np.moveaxis(bands[..., :4].astype(np.float32), -1, 0)
    class_map = np.full(red.shape, 2)
    class_map[_normalised_difference(infrared, red) > _PLANTS] = 1
    # After plants: where both hold it is water.
    class_map[_normalised_difference(green, infrared) > _WATER] = 0
    return class_map


def _normalised_difference(
    a: Float[np.ndarray, "H W"], b: Float[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    # Where both are 0 it is 0, not 0/0.
    return np.divide(a - b, a + b, out=np.zeros_like(a), where=a + b > 0)


def stain(image_uint8: Bands) -> ClassMap:
    """Nuclei, stroma or empty glass of a stained slide (Ruifrok and Johnston 2001)."""
    # Not at the top: a machine that only computes need not have it.
    import skimage.color

    haematoxylin = skimage.color.rgb2hed(image_uint8)[..., 0]
    # Rec. 709 luma.
    luminance = image_uint8 @ np.array([0.2126, 0.7152, 0.0722]) / 255
    class_map = np.where(haematoxylin > _NUCLEI, 0, 1)
    class_map[luminance > _GLASS] = 2
    return class_map


def earth(image_uint8: Bands) -> ClassMap:
    """Ocean, shallows, ice, desert or forest of NASA's Blue Marble with its sea floor (Stöckli et
    al. 2005); all land that is neither ice nor desert is forest."""
    pixels = image_uint8[..., :3].astype(np.float32)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    # Rec. 709 luma.
    luminance = pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    class_map = np.full(red.shape, 4)
    class_map[(luminance > _SAND) | (red > _RED_SOIL * green)] = 3
    water = ((blue > red + 4) & (blue > green)) | (luminance < _ABYSS)
    class_map[water & (luminance >= _SHALLOWS)] = 1
    class_map[water & (luminance < _SHALLOWS)] = 0
    # After water: ice in shade is blue.
    class_map[(pixels.min(axis=-1) > _SNOW) & (red - blue < _WARM)] = 2
    return class_map


MEASURES: Mapping[str, Callable[[Bands], ClassMap]] = {
    "landcover": land_cover, "stain": stain, "earth": earth,
}  # fmt: skip


def quadrant_parts(classes: ClassMap, count: int) -> Float[np.ndarray, "2 2 K"]:
    """The part of every class in every quadrant."""
    height, width = (size // 2 for size in classes.shape)
    halves = (slice(None, height), slice(height, None)), (slice(None, width), slice(width, None))

    def part(block: ClassMap) -> Float[np.ndarray, "K"]:
        return np.bincount(block.ravel(), minlength=count)[:count] / max(block.size, 1)

    return np.array([[part(classes[r, c]) for c in halves[1]] for r in halves[0]], np.float32)


def label_names(name: str, marked: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels that a measure gives: "water", then "water north-west" …; `marked` are the classes
    of polygons."""
    classes = class_names(name, marked)
    return tuple(f"{kind} {where}".strip() for kind in classes for where in ("", *QUADRANTS))


def label_areas(
    name: str, marked: Sequence[str] = ()
) -> tuple[tuple[int, int, int, int, int], ...]:
    """For every class the numbers of its labels: of the whole, and of quadrants row by row."""
    count = 1 + len(QUADRANTS)
    starts = range(0, len(label_names(name, marked)), count)
    return tuple(tuple(range(start, start + count)) for start in starts)


def class_names(name: str, marked: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes of a measure; of polygons those that are `marked`, and what lies in none."""
    return (*marked, UNMARKED) if name == ANNOTATIONS else CLASSES[name]


def label_values(parts: Float[np.ndarray, "2 2 K"]) -> Float[np.ndarray, "L"]:
    """Their values, 0…1."""
    quadrants = parts.reshape(4, -1)
    # Quadrants are of one size, but for a pixel: their mean is the part of the whole.
    return np.concatenate([[column.mean(), *column] for column in quadrants.T]).astype(np.float32)
