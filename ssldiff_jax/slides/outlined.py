"""Polygons of a GeoJSON file in pixels of a slide."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ssldiff_jax.slides import geojson, ground, raster, rasterised
from ssldiff_jax.slides.protocol import SlideError

if TYPE_CHECKING:
    import rasterio
    import shapely

_DEGREES = "EPSG:4326"
_BEYOND_PX, _BEYOND = 64, 0.01  # px, and part of a side, that a polygon may leave its slide by
_EDGES = 64  # of a straight line over a scene: it is bent where coordinates are changed


@dataclasses.dataclass(frozen=True)
class Frame:
    """A slide that polygons are brought onto.

    Attributes:
        path: of its file.
        shape: height and width, px of level 0.
        place: where these lie on the ground, if anywhere.
    """

    path: pathlib.Path
    shape: tuple[int, int]
    place: ground.Georeference | None = None

    @classmethod
    def of(cls, path: pathlib.Path, shape: tuple[int, int]) -> "Frame":
        """That of a slide's file."""
        import rasterio

        place = None
        if path.is_file() and (raster.is_geotiff(path) or raster.is_jpeg2000(path)):
            with rasterio.open(path) as file:
                place = ground.georeference(file)
        return cls(path, shape, place)

    def __str__(self) -> str:
        height, width = self.shape
        return f"{self.path.name} ({width} × {height} px)"


def in_pixels(regions: geojson.Regions, frame: Frame) -> geojson.Regions:
    """The same in (x, y) px of level 0, cut at the slide's borders.

    Coordinates on the ground are those of the file's `crs` or, by RFC 7946, longitude and latitude;
    polygons elsewhere on the ground are left out, so that none may be left. Raises SlideError
    where pixels lie beyond the slide, where a slide lies nowhere on the ground and the file does,
    and for longitude and latitude that are swapped.
    """
    if regions.crs and frame.place is None:
        raise SlideError(
            f"expected pixels of {frame}, which lies nowhere on the ground, got coordinates of "
            f"{regions.crs} in {regions.path}"
        )
    if regions.in_pixels or frame.place is None:
        return _of_pixels(regions, frame)
    crs = regions.crs or _DEGREES
    can_be_it = bool(regions.crs) or _are_degrees(regions.features)
    placed = _of_ground(regions, frame, crs) if can_be_it else None
    if placed and placed.features:
        return placed
    _refuse_swapped(regions, frame, crs)
    if regions.crs:
        return placed
    # Elsewhere on the ground, or pixels that no program has signed.
    return placed if placed and not _lie_inside(regions, frame) else _of_pixels(regions, frame)


def _refuse_swapped(regions: geojson.Regions, frame: Frame, crs: str) -> None:
    """Raise SlideError where longitude and latitude lie on a slide when they are swapped."""
    swapped = [dataclasses.replace(f, geometry=_swapped(f.geometry)) for f in regions.features]
    if not (_are_degrees(swapped) and (crs == _DEGREES or _system(regions, crs).is_geographic)):
        return
    turned = dataclasses.replace(regions, features=tuple(swapped))
    on_slide = _of_ground(turned, frame, crs).features
    if on_slide:
        raise SlideError(
            f"expected longitude before latitude in {regions.path}, got them swapped: so "
            f"{on_slide[0]} lies beyond {frame}"
        )


def _system(regions: geojson.Regions, crs: str) -> "rasterio.crs.CRS":
    """The coordinate system of a code. Raises SlideError for an unknown one."""
    import rasterio.crs
    import rasterio.errors

    try:
        return rasterio.crs.CRS.from_epsg(int(crs.removeprefix("EPSG:")))
    except rasterio.errors.CRSError as error:
        raise SlideError.because(regions.path, "a known crs", error) from error


def _of_pixels(regions: geojson.Regions, frame: Frame) -> geojson.Regions:
    import shapely

    height, width = frame.shape
    allowed = max(_BEYOND_PX, _BEYOND * max(frame.shape))
    for feature in regions.features:
        left, top, right, bottom = feature.geometry.bounds
        if min(left, top) < -allowed or right > width + allowed or bottom > height + allowed:
            raise SlideError(
                f"expected pixels of {frame} in {regions.path}, got {feature} at x "
                f"{left:g}…{right:g}, y {top:g}…{bottom:g}: is it of another slide?"
            )
    whole = shapely.box(0, 0, width, height)
    return _replaced(regions, ((f, f.geometry.intersection(whole)) for f in regions.features))


def _of_ground(regions: geojson.Regions, frame: Frame, crs: str) -> geojson.Regions:
    """Polygons with coordinates of a system."""
    import rasterio.crs
    import rasterio.errors
    import rasterio.warp
    import shapely

    source = _system(regions, crs)
    try:
        target = rasterio.crs.CRS.from_wkt(frame.place.crs)
        border = _border(frame, target, source)
    except rasterio.errors.CRSError as error:
        raise SlideError.because(regions.path, "a known crs", error) from error
    # A country's polygon around a scene: only what is near it is bent.
    near = border.buffer(0.1 * max(np.ptp(border.bounds[::2]), np.ptp(border.bounds[1::2])))
    step = math.sqrt(max(near.area, 1e-300)) / _EDGES
    inverse = tuple(~rasterio.Affine(*frame.place.transform))

    def to_pixels(corners: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
        x, y = rasterio.warp.transform(source, target, corners[:, 0], corners[:, 1])
        return np.stack(_moved(inverse, np.asarray(x), np.asarray(y)), axis=1)

    def placed(shape: "shapely.Geometry") -> "shapely.Geometry":
        shape = shapely.segmentize(shape.intersection(near), step)
        return shape if shape.is_empty else shapely.transform(shape, to_pixels)

    height, width = frame.shape
    whole = shapely.box(0, 0, width, height)
    shapes = ((f, _valid(placed(f.geometry)).intersection(whole)) for f in regions.features)
    return _replaced(regions, shapes)


def _border(
    frame: Frame, target: "rasterio.crs.CRS", source: "rasterio.crs.CRS"
) -> "shapely.Polygon":
    """The border of a slide in coordinates of a system."""
    import rasterio.warp
    import shapely

    height, width = frame.shape
    ring = shapely.segmentize(shapely.box(0, 0, width, height), max(frame.shape) / _EDGES)
    corners = shapely.get_coordinates(ring)
    x, y = _moved(frame.place.transform, *corners.T)
    corners = np.stack(rasterio.warp.transform(target, source, x, y), axis=1)
    if not np.isfinite(corners).all():
        raise SlideError(f"expected {frame} within the bounds of {source}, got it beyond")
    return shapely.Polygon(corners).convex_hull


def _moved(
    transform: Sequence[float], x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def _valid(shape: "shapely.Geometry") -> "shapely.Geometry":
    """Corners that come close may cross when they are moved."""
    import shapely

    return shape if shape.is_valid else shapely.make_valid(shape)


def _replaced(
    regions: geojson.Regions, shapes: Iterable[tuple[geojson.Feature, "shapely.Geometry"]]
) -> geojson.Regions:
    """With other shapes, without features of which nothing is left."""
    pairs = ((feature, rasterised.areas(shape)) for feature, shape in shapes)
    kept = (dataclasses.replace(f, geometry=shape) for f, shape in pairs if shape.area)
    return dataclasses.replace(regions, features=tuple(kept), crs="", in_pixels=True)


def _swapped(shape: "shapely.Geometry") -> "shapely.Geometry":
    import shapely

    return shapely.transform(shape, lambda corners: corners[:, ::-1])


def _are_degrees(features: Sequence[geojson.Feature]) -> bool:
    bounds = np.array([f.geometry.bounds for f in features])
    return bool((np.abs(bounds) <= [180, 90, 180, 90]).all())


def _lie_inside(regions: geojson.Regions, frame: Frame) -> bool:
    height, width = frame.shape
    bounds = np.array([f.geometry.bounds for f in regions.features])
    return bool((bounds[:, :2] >= 0).all() and (bounds[:, 2:] <= [width, height]).all())
