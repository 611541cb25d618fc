"""STAC items: written for images that lie somewhere, in plain JSON.

Source: the STAC specification 1.1.0, its extensions projection 2.0.0, processing 1.2.0, of bands
eo 2.0.0 and raster 2.0.0, and RFC 7946 for outlines that cross the date line or hold a pole.
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.slides import ground, multiband

VERSION = "1.1.0"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSIONS = ("projection/v2.0.0", "processing/v1.2.0")
_OF_BANDS = {"eo": "eo/v2.0.0", "raster": "raster/v2.0.0"}
_BANDS = ("red", "green", "blue")
# Names of bands that the extension eo knows.
_COMMON = frozenset((
    *_BANDS, "pan", "coastal", "green05", "yellow", "rededge", "rededge071", "rededge075",
    "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12",
))  # fmt: skip
_LICENCE = re.compile(r"[\w\-.+]+")
_ALONG = 32  # points on each border: curves in longitude and latitude
_DIGITS = 9  # of degrees: .1 mm
_SURE = 90  # of 100: the systems are the same, whatever their names

Ring = Float[np.ndarray, "_ 2"]
"""Longitude and latitude of an outline, degrees; not closed."""


def licence(stated: str) -> str:
    """A licence as an item may have it: an SPDX identifier, or `other`."""
    return stated if _LICENCE.fullmatch(stated) else "other"


def item(
    name: str,
    href: str,
    size: tuple[int, int],
    place: ground.Georeference,
    properties: Mapping[str, Any],
    *,
    bands: multiband.MultibandConfig = multiband.NO_BANDS,
) -> dict[str, Any]:
    """The item of a COG of (height, width) px that lies beside it, with its time of creation.

    Raises ValueError for a place that has no longitude and latitude on the earth.
    """
    import rasterio.crs

    crs = rasterio.crs.CRS.from_user_input(place.crs)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    corners = _outline(place, size, 1)
    geometry, bbox = _footprint(_degrees(crs, _outline(place, size, _ALONG)))
    # None for what a register's system is only like: a PROJ string with another datum.
    authority = crs.to_authority(confidence_threshold=_SURE)
    code = ":".join(authority) if authority else None
    projection = {
        "proj:code": code,
        **({} if code else {"proj:wkt2": crs.to_wkt(version="WKT2_2019")}),
        "proj:shape": list(size),
        "proj:transform": list(place.transform),
        "proj:bbox": [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()],
    }
    asset = {
        "href": f"./{href}",
        "type": COG,
        "roles": ["data"] if bands.is_used else ["data", "visual"],
        "bands": (listed := _bands(bands)),
    }
    used = {key.partition(":")[0] for band in listed for key in band} & set(_OF_BANDS)
    extensions = [*_EXTENSIONS, *(_OF_BANDS[prefix] for prefix in sorted(used))]
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [
            f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions
        ],
        "id": name,
        "geometry": geometry,
        "bbox": bbox,
        # Nothing was seen at any time: that of its making stands for it.
        "properties": {"datetime": now, "created": now, **properties, **projection},
        "links": [],
        "assets": {"image": asset},
    }


def _bands(bands: multiband.MultibandConfig) -> list[dict[str, Any]]:
    """What is said of each band of the COG."""
    if not bands.is_used:
        return [{"name": band, "data_type": "uint8"} for band in _BANDS]
    listed = []
    for name, low, high in zip(bands.names, *bands.ranges, strict=True):
        band = {"name": name, "data_type": bands.dtype.name, "nodata": multiband.MISSING}
        common = "nir" if name.lower() == "infrared" else name.lower()
        if common in _COMMON:
            band["eo:common_name"] = common
        if bands.is_scaled:
            band |= {"raster:scale": (high - low) / bands.top, "raster:offset": low}
        listed.append(band)
    return listed


def _outline(place: ground.Georeference, size: tuple[int, int], along: int) -> Ring:
    """Points of an image's border in its coordinate system, corner by corner."""
    height, width = size
    a, b, c, d, e, f = place.transform
    part = np.arange(along) / along
    zero, one = np.zeros(along), np.ones(along)
    cols = np.concatenate([part, one, 1 - part, zero]) * width
    rows = np.concatenate([zero, part, one, 1 - part]) * height
    return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], -1)


def _degrees(crs: Any, points: Ring) -> Ring:
    import rasterio.warp

    try:
        both = rasterio.warp.transform(crs, "EPSG:4326", points[:, 0], points[:, 1])
        degrees = np.stack(both, -1)
    except Exception:  # GDAL's classes, and rasterio's: there is no way, as from another body
        degrees = np.full(points.shape, np.nan)
    if not np.isfinite(degrees).all():
        raise ValueError(
            "expected a place with longitude and latitude on the earth, got "
            f"{crs.to_string():.80} from {points[0].tolist()} on"
        )
    return degrees


def _footprint(ring: Ring) -> tuple[dict[str, Any], list[float]]:
    """The geometry, and its west, south, east, north; what crosses the date line is cut there."""
    closed = np.vstack([ring, ring[:1]])
    closed[:, 0] = np.unwrap(closed[:, 0], period=360)
    if abs(closed[-1, 0] - closed[0, 0]) > 180:
        ring = _around_pole(closed)
        pieces, west, east = [ring], -180.0, 180.0
    else:
        # From [-180, 180) on.
        ring = closed[:-1] - [360 * np.floor((closed[:, 0].min() + 180) / 360), 0]
        inside = _cut(ring, 180.0, keep_west=True)
        beyond = _cut(ring, 180.0, keep_west=False) - [360, 0]
        pieces = [piece for piece in (inside, beyond) if len(piece) and np.ptp(piece[:, 0]) > 0]
        # An east that lies west of the west says that the date line is between.
        west, east = pieces[0][:, 0].min(), pieces[-1][:, 0].max()
    south, north = ring[:, 1].min(), ring[:, 1].max()
    polygons = [[_closed(piece)] for piece in pieces]
    is_one = len(polygons) == 1
    geometry = {
        "type": "Polygon" if is_one else "MultiPolygon",
        "coordinates": polygons[0] if is_one else polygons,
    }
    return geometry, [round(float(n), _DIGITS) for n in (west, south, east, north)]


def _around_pole(closed: Ring) -> Ring:
    """What lies within an outline that runs once around the earth, cut open at the date line."""
    if closed[-1, 0] < closed[0, 0]:
        closed = closed[::-1]
    pole = 90.0 if closed[:, 1].mean() > 0 else -90.0
    closed = closed - [360 * np.floor((closed[0, 0] + 180) / 360), 0]
    latitude = np.interp(180.0, *closed.T)
    open_ring = closed[:-1]
    beyond = open_ring[open_ring[:, 0] > 180] - [360, 0]
    before = open_ring[open_ring[:, 0] < 180]
    ends = [[180, latitude], [180, pole], [-180, pole]]
    return np.vstack([[[-180, latitude]], beyond, before, ends])


def _cut(ring: Ring, longitude: float, *, keep_west: bool) -> Ring:
    """The part of an outline on one side of a meridian (Sutherland and Hodgman)."""
    sign = 1 if keep_west else -1
    kept = []
    for here, after in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        is_in, goes_in = (sign * (longitude - point[0]) >= 0 for point in (here, after))
        if is_in:
            kept.append(here)
        if is_in != goes_in:
            part = (longitude - here[0]) / (after[0] - here[0])
            kept.append(here + part * (after - here))
    return np.array(kept).reshape(-1, 2)


def _closed(ring: Ring) -> list[list[float]]:
    """Counter-clockwise, and with its first point at the end."""
    x, y = ring.T
    area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    ring = ring if area > 0 else ring[::-1]
    return np.vstack([ring, ring[:1]]).round(_DIGITS).tolist()
