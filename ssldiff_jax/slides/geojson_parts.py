"""What GeoJSON is made of: its text, its features, and the rings of their polygons."""

import collections
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from jaxtyping import Float

from ssldiff_jax.slides.protocol import SlideError

if TYPE_CHECKING:
    import shapely

_GEOMETRIES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip
_LARGEST = 2**30  # bytes of text: a small gzip file may hold a terabyte of zeros
_SHOWN = 60  # characters of a name in a message


Place = pathlib.Path | str
"""A file of this machine, or an address."""


def load(path: Place) -> Any:
    """The JSON of a file, gzip'd or not. Raises SlideError."""
    try:
        with _opened(path) as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            data = (gzip.GzipFile(fileobj=raw) if is_gzip else raw).read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise SlideError(f"expected at most {_LARGEST // 2**20} MiB of GeoJSON in {path}")
        # utf-8-sig: some programs begin a file with a mark of the byte order.
        return json.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise SlideError(f"expected a GeoJSON file, got {path}: no such file") from None
    except SlideError:
        raise
    # ValueError: no text, no JSON, a number of thousands of digits; recursion: lists in lists
    # without an end; of gzip EOFError and zlib's are none of the others.
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise SlideError.because(path, "GeoJSON", error) from error


def _opened(path: Place) -> BinaryIO:
    # Not at the top: it knows slides, which polygons need not.
    from ssldiff_jax.slides import far_files, remote

    if remote.is_remote(str(path)):
        return io.BytesIO(far_files.read(str(path), _LARGEST + 1))
    return pathlib.Path(path).open("rb")


def features(path: Place, values: Any) -> Iterator[Mapping[str, Any]]:
    """All features in their order; QuPath may put some inside of others."""
    if isinstance(values, Mapping) and isinstance(values.get("features"), list):
        values = values["features"]
    elif isinstance(values, Mapping) and values.get("type") == "GeometryCollection":
        values = values.get("geometries")
    elif isinstance(values, Mapping):
        values = [values]
    if not isinstance(values, list):
        raise SlideError(f"expected GeoJSON features in {path}, got {kind_of(values)}")
    waiting = collections.deque(values)
    number = 0
    while waiting:
        value, number = waiting.popleft(), number + 1
        if isinstance(value, Mapping) and value.get("type") in _GEOMETRIES:
            value = {"type": "Feature", "geometry": value, "properties": {}}
        if not isinstance(value, Mapping) or value.get("type") != "Feature":
            raise SlideError(f"expected a GeoJSON feature as number {number} of {path}, got "
                             f"{kind_of(value)}")  # fmt: skip
        yield value
        properties = value.get("properties")
        inside = properties.get("childObjects") if isinstance(properties, Mapping) else None
        if isinstance(inside, list):
            waiting.extendleft(reversed(inside))


def kind_of(value: Any) -> str:
    """In a few words, for messages."""
    if isinstance(value, Mapping):
        return f"type {value['type']!r:.60}" if "type" in value else "an object without a type"
    return "nothing" if value is None else f"{json.dumps(value):.40}"


def called_as(number: int, name: str, class_name: str) -> str:
    words = [short(name)] if name else []
    words += [f"class {short(class_name)}"] if class_name else []
    return f"feature {number}" + (f" ({', '.join(words)})" if words else "")


def short(name: str) -> str:
    """In quotes, on one line, and not longer than a line."""
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "…")


def polygons_of(
    path: Place, called: str, geometry: Any, skipped: collections.Counter
) -> tuple["shapely.Polygon | shapely.MultiPolygon | None", bool]:
    """The area of a geometry, and whether it had to be mended; None for one without, which is
    counted."""
    import shapely

    try:
        parts = list(_rings(path, called, geometry, skipped))
        if not parts:
            return None, False
        polygons = [shapely.Polygon(shell, holes) for shell, *holes in parts]
    except SlideError:
        raise
    except (ValueError, RecursionError, shapely.errors.ShapelyError) as error:
        raise SlideError.because(path, f"polygons as {called}", error) from error
    whole = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    is_valid = whole.is_valid
    if not is_valid:
        # By structure: parts of a whole that overlap are still parts of it.
        whole = shapely.make_valid(whole, method="structure", keep_collapsed=False)
    if whole.is_empty or not whole.area:
        skipped["Polygon without an area"] += 1
        return None, False
    if whole.geom_type not in ("Polygon", "MultiPolygon"):
        whole = shapely.union_all([g for g in whole.geoms if g.area])
    return whole, not is_valid


def _rings(
    path: Place, called: str, geometry: Any, skipped: collections.Counter
) -> Iterator[list[Float[np.ndarray, "_ 2"]]]:
    """Shell and holes of every polygon."""
    if geometry is None:
        skipped["nothing"] += 1
        return
    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    if kind not in _GEOMETRIES:
        raise SlideError(f"expected a geometry of {called} of {path}, got {kind_of(geometry)}")
    if kind == "GeometryCollection":
        for part in _listed(path, called, geometry.get("geometries")):
            yield from _rings(path, called, part, skipped)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates = _listed(path, called, geometry.get("coordinates"))
        for part in [coordinates] if kind == "Polygon" else coordinates:
            # A polygon without a ring is an empty one.
            if rings := [_ring(path, called, r) for r in _listed(path, called, part)]:
                yield rings
    else:
        skipped[kind] += 1


def _listed(path: Place, called: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise SlideError(f"expected coordinates of {called} of {path}, got {kind_of(values)}")
    return values


def _ring(path: Place, called: str, ring: Any) -> Float[np.ndarray, "N 2"]:
    """Its corners; heights are left out."""
    try:
        # Some corners may have a height, and others none.
        corners = np.array([corner[:2] for corner in ring], np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise SlideError(f"expected corners [x, y] of {called} of {path}, got "
                         f"{kind_of(ring)}") from None  # fmt: skip
    if not np.isfinite(corners).all():
        raise SlideError(f"expected finite corners of {called} of {path}, got NaN or infinity")
    if len(corners) < 3:
        raise SlideError(
            f"expected three corners or more of {called} of {path}, got {len(corners)}"
        )
    return corners
