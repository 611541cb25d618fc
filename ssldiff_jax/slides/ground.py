"""Where a georeferenced raster lies, and how large its pixels are on the ground."""

import dataclasses
import math
import pathlib
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ssldiff_jax.slides import protocol

if TYPE_CHECKING:
    import rasterio.warp

EARTH_RADIUS = 6_371_008.8
"""Metres, the mean one: on this sphere a metre is off by 0.6 % at the most."""

_EQUATOR = 6_378_137.0  # m, the radius there
_ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",([\d.]+),([\d.]+)')

_SQUARE = 0.01  # sides of a pixel may differ by this part, and a map's metre from one on the ground
_DISTORTED = 0.05  # a map may squeeze the ground, or change its scale within a raster, by this part
_LONGITUDE, _LATITUDE = 540, 90  # degrees: rasters may begin at any meridian and cross the last
_STEP = 10.0  # m: long beside what a float resolves, short beside what a projection bends

Vectors = Float[np.ndarray, "_ 2"]
"""A pixel's two sides as columns, in metres: on a map, or in space."""


@dataclasses.dataclass(frozen=True)
class Georeference:
    """Where a raster lies: its coordinate system, and the six numbers from (column, row) there."""

    crs: str
    transform: tuple[float, ...]

    def moved(self, rows: float, cols: float) -> "Georeference":
        """From another pixel on."""
        a, b, c, d, e, f = self.transform
        x, y = c + a * cols + b * rows, f + d * cols + e * rows
        return Georeference(self.crs, (a, b, x, d, e, y))

    def scaled(self, rows: float, cols: float) -> "Georeference":
        """From the same corner, in pixels of which each is `rows` × `cols` of these."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a * cols, b * rows, c, d * cols, e * rows, f))


def georeference(file: "rasterio.DatasetReader") -> Georeference | None:
    """Where the pixels of a raster lie as they are stored; None for one that does not say."""
    if file.crs is None or file.transform.is_identity:
        return None
    return Georeference(file.crs.to_wkt(), tuple(file.transform)[:6])


def add_tags(path: pathlib.Path, place: Georeference) -> None:
    """Write the tags of a GeoTIFF into the first image of a TIFF; all pixels and the other images
    stay as they are."""
    import rasterio

    # It has no place yet.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    with rasterio.open(path, "r+", driver="GTiff") as file:
        file.crs, file.transform = place.crs, rasterio.Affine(*place.transform)


def pixel_size(file: "rasterio.DatasetReader") -> protocol.PixelSize:
    """Microns per pixel on the ground, at the centre of a raster.

    The coordinate system's own unit counts where it is true to 1 % there: a metre of a UTM zone is
    a metre. Elsewhere (degrees, Web Mercator away from the equator) it is the mean of the two sides
    on the ground. What is not square, or not of one scale, has none.
    """
    crs = file.crs
    if crs is None or file.transform.is_identity:
        return protocol.PixelSize(absent=protocol.NO_MPP)
    if not (crs.is_projected or crs.is_geographic):
        return protocol.PixelSize(absent=protocol.NO_METRES, is_ground=True)
    places = _on_the_ground(file)
    centre, nominal = places[_CENTRE], _nominal(file, places)
    if not np.isfinite(places).all():
        problem = f"expected a raster on the ground, got one beyond the bounds of {_name(crs)}"
    else:
        problem = _not_square(nominal, centre) or _not_even(places)
    if problem:
        return protocol.PixelSize(wrong=problem, is_ground=True)
    width, height = _believed(nominal, centre)
    return protocol.PixelSize(float(width + height) / 2 * 1e6, is_ground=True)


def pixel_sides(file: "rasterio.DatasetReader") -> Float[np.ndarray, "2"]:
    """Width and height of a pixel at the centre of a raster, in metres as `pixel_size` has them;
    not finite where a part of the raster lies nowhere."""
    places = _on_the_ground(file)
    if not np.isfinite(places).all():
        return np.full(2, np.nan)
    return _believed(_nominal(file, places), places[_CENTRE])


def _nominal(file: "rasterio.DatasetReader", places: Float[np.ndarray, "9 D 2"]) -> np.ndarray:
    """A pixel's sides by the unit of a map; of degrees there is none but the ground."""
    crs = file.crs
    return _sides(file) * crs.linear_units_factor[1] if crs.is_projected else places[_CENTRE]


def _believed(nominal: np.ndarray, centre: np.ndarray) -> Float[np.ndarray, "2"]:
    """Width and height by the map's unit where that is true, else on the ground."""
    is_true = abs(_side(centre) / _side(nominal) - 1) <= _SQUARE
    return np.linalg.norm(nominal if is_true else centre, axis=0)


# Corners, middles of the borders and centre of a raster, in parts of its width and height.
_PLACES = np.array([(x, y) for y in (0, 0.5, 1) for x in (0, 0.5, 1)])
_CENTRE = 4


def _name(crs: "rasterio.crs.CRS") -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else "its coordinate system"


def _sides(file: "rasterio.DatasetReader") -> Vectors:
    """Of a pixel, in units of the coordinate system."""
    a, b, _, d, e, _ = tuple(file.transform)[:6]
    return np.array([[a, b], [d, e]])


def _on_the_ground(file: "rasterio.DatasetReader") -> Float[np.ndarray, "9 D 2"]:
    """A pixel's sides at the corners, the middles of the borders and the centre; not finite where
    one of them lies nowhere."""
    corner, sides = np.array([file.transform.c, file.transform.f]), _sides(file)
    points = corner + (_PLACES * [file.width, file.height]) @ sides.T
    if file.crs.is_projected:
        return _jacobian(file.crs, points) @ sides
    radians = file.crs.units_factor[1]
    beyond = np.degrees(np.abs(points) * radians) > np.array([_LONGITUDE, _LATITUDE]) * (1 + 1e-9)
    points[beyond.any(axis=-1)] = np.nan  # metres that are called degrees, or north before east
    shrunk = np.stack([np.cos(points[:, 1] * radians), np.ones(len(points))], -1)
    return _radius(file.crs) * radians * shrunk[:, :, None] * sides


def _jacobian(crs: "rasterio.crs.CRS", points: Float[np.ndarray, "P 2"]) -> np.ndarray:
    """Metres in space for a unit of each axis of a map, (P, 3, 2)."""
    # Not at the top: a machine that only computes need not have it.
    import rasterio.warp

    step = _STEP / crs.linear_units_factor[1]
    # Central differences, whose error falls with the square of the step.
    around = step / 2 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    positions = (points[:, None] + around).reshape(-1, 2)
    try:
        degrees = rasterio.warp.transform(crs, _degrees(crs), positions[:, 0], positions[:, 1])
    except Exception:  # GDAL's classes, rasterio's and Python's: there is no way to the ground
        return np.full((len(points), 3, 2), np.nan)
    longitude, latitude = np.radians(np.where(np.isfinite(degrees), degrees, np.nan))
    # In space, not in degrees: these shrink towards the poles and jump at the date line.
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    space = _radius(crs) * np.stack([x, y, np.sin(latitude)], -1).reshape(len(points), 4, 3)
    return np.stack([space[:, 0] - space[:, 1], space[:, 2] - space[:, 3]], -1) / step


def _radius(crs: "rasterio.crs.CRS") -> float:
    """Of a sphere as large as the body that a coordinate system is of, mostly the earth."""
    match = _ELLIPSOID.search(crs.to_wkt())
    part = float(match[1]) / _EQUATOR if match else 1.0
    return EARTH_RADIUS * (1 if abs(part - 1) < _SQUARE else part)


def _degrees(crs: "rasterio.crs.CRS") -> str:
    """Latitude and longitude on the same body."""
    if _radius(crs) == EARTH_RADIUS:
        return "EPSG:4326"
    axis, flattening = _ELLIPSOID.search(crs.to_wkt()).groups()
    shape = f"+rf={flattening}" if float(flattening) else f"+b={axis}"
    return f"+proj=longlat +a={axis} {shape} +no_defs"


def _not_square(nominal: Vectors, centre: Vectors) -> str:
    """Squares on the ground, or squares of a map that does not squeeze them too much."""
    if _skew(centre) <= _SQUARE or (_skew(nominal) <= _SQUARE and _skew(centre) <= _DISTORTED):
        return ""
    wrong = nominal if _skew(nominal) > _SQUARE else centre
    width, height = np.linalg.norm(wrong, axis=0)
    angle = math.degrees(math.acos(np.clip(_cosine(wrong), -1, 1)))
    leaning = "" if abs(angle - 90) < 0.05 else f" at {angle:.1f}° to each other"
    return f"expected square pixels, got {height:.6g} × {width:.6g} m{leaning}"


def _not_even(places: Float[np.ndarray, "9 D 2"]) -> str:
    sizes = np.array([_side(vectors) for vectors in places])
    if np.abs(sizes / sizes[_CENTRE] - 1).max() <= _DISTORTED:
        return ""
    return (
        f"expected pixels of one size on the ground, within {_DISTORTED:.0%}, got "
        f"{sizes.min():.6g}…{sizes.max():.6g} m"
    )


def _skew(vectors: Vectors) -> float:
    """How far a pixel is from a square: the part by which its sides differ, or the cosine between
    them, whichever is more."""
    width, height = np.linalg.norm(vectors, axis=0)
    if not (0 < width < math.inf and 0 < height < math.inf):
        return math.inf
    return max(abs(width - height) / max(width, height), abs(_cosine(vectors)))


def _cosine(vectors: Vectors) -> float:
    """Between the sides; 0 where one has no length."""
    lengths = np.linalg.norm(vectors, axis=0).prod()
    return float(vectors[:, 0] @ vectors[:, 1] / lengths) if lengths else 0.0


def _side(vectors: Vectors) -> float:
    """The side of a square as large as a pixel."""
    # det(VᵀV) is the square of the area that both sides span, in a plane or in space.
    return math.sqrt(math.sqrt(max(np.linalg.det(vectors.T @ vectors), 0.0)))
