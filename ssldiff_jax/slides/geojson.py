"""Regions of a slide in GeoJSON, as QuPath, QGIS and TRIDENT write it: polygons with names and
classes.

Sources: RFC 7946; the `crs` member of the GeoJSON specification of 2008; QuPath's keys
(`objectType`, `classification` with `color`, before 0.4 `colorRGB`), which it reads and writes in
pixels of level 0.
"""

import collections
import dataclasses
import json
import logging
import pathlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import geojson_parts as parts
from ssldiff_jax.slides.protocol import SlideError

if TYPE_CHECKING:
    import shapely

_LOG = logging.getLogger(__name__)

_PLACES = 3  # decimals of what is written, px
_NAMED = re.compile(
    r"(?P<path>.+?\.(?:geo)?json(?:\.gz)?(?:\?[^#]*)?)(?:#(?P<name>.*))?", re.I | re.S
)
_CODE = re.compile(r"(?:urn:ogc:def:crs:)?(?P<who>EPSG|OGC|CRS)(?::[\d.]*)?:(?P<code>\w+)", re.I)


@dataclasses.dataclass(frozen=True)
class Feature:
    """A region.

    Attributes:
        number: from 1, in the order of the file.
        geometry: a valid polygon or several, (x, y) in the file's coordinates.
        name: "" for none.
        class_name: "" for none.
        colour: red, green, blue of 0…255, where the file says one.
    """

    number: int
    geometry: "shapely.Polygon | shapely.MultiPolygon"
    name: str = ""
    class_name: str = ""
    colour: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        return parts.called_as(self.number, self.name, self.class_name)


@dataclasses.dataclass(frozen=True)
class Regions:
    """What a file holds.

    Attributes:
        path: the file, or its address.
        features: its polygons; points and lines are left out.
        crs: "EPSG:4326" …, where the file says one; "" for none.
        in_pixels: whether a program wrote it that knows pixels alone.
    """

    path: parts.Place
    features: tuple[Feature, ...]
    crs: str = ""
    in_pixels: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many features are of each class, by its name."""
        return self.counts_of(("*",))

    def counts_of(self, names: Sequence[str]) -> dict[str, int]:
        """Those of some classes, as `of_classes` takes them."""
        return dict(collections.Counter(f.class_name for f in self.of_classes(names)))

    def of_classes(self, names: Sequence[str]) -> tuple[Feature, ...]:
        """Features of some classes; "*" stands for all, those without a class included."""
        return tuple(f for f in self.features if "*" in names or f.class_name in names)

    def named(self, name: str) -> tuple[Feature, ...]:
        """Those of a name or, where none has it, of a class of that name.

        Raises SlideError, with the names that there are, where there is none.
        """
        by_name = tuple(f for f in self.features if f.name == name)
        by_class = by_name or tuple(f for f in self.features if f.class_name == name)
        if not by_class:
            known = dict.fromkeys(n for f in self.features for n in (f.name, f.class_name) if n)
            raise SlideError(
                f"expected a feature called {parts.short(name)} in {self.path}, got "
                f"{', '.join(map(parts.short, list(known)[:8])) or 'features without names'}"
            )
        return by_class


def split_name(text: str) -> tuple[str, str] | None:
    """Path, or address with what signs it, and name of `file.geojson#name`, the name "" without
    one; None for another file."""
    match = _NAMED.fullmatch(text)
    return (match["path"], match["name"] or "") if match else None


def read(path: parts.Place, *, class_property: str = "") -> Regions:
    """The polygons of a GeoJSON file, gzip'd or not, here or behind an address: a
    FeatureCollection, a list of features, a Feature, or a geometry.

    Classes are those of QuPath (`classification`), or a property of the features. Polygons that
    cross themselves are mended, with a warning. Raises SlideError for a file that is no GeoJSON, is
    damaged, or has no polygon; it names the feature.
    """
    values = parts.load(path)
    features = list(parts.features(path, values))
    regions, skipped, mended = [], collections.Counter(), []
    for number, feature in enumerate(features, 1):
        properties = feature.get("properties") or {}
        if not isinstance(properties, Mapping):
            raise SlideError(
                f"expected properties of feature {number} of {path}, got "
                f"{parts.kind_of(properties)}"
            )
        name, class_name, colour = _facts(properties, class_property)
        called = parts.called_as(number, name, class_name)
        polygons, is_mended = parts.polygons_of(path, called, feature.get("geometry"), skipped)
        if polygons is None:
            continue
        if is_mended:
            mended.append(called)
        regions.append(Feature(number, polygons, name, class_name, colour))
    other = ", ".join(f"{count} of type {kind}" for kind, count in skipped.items())
    if not regions:
        got = f"geometries without an area ({other})" if other else "no features"
        raise SlideError(f"expected polygons in {path}, got {got}")
    if other:
        _LOG.warning("%s: geometries that are no polygons are left out: %s", path, other)
    if mended:
        _LOG.warning(
            "%s: %d polygons crossed themselves and were mended, first %s",
            path, len(mended), mended[0],
        )  # fmt: skip
    crs = _crs(path, values)
    made_by = _knows_pixels_alone(features, crs)
    return Regions(path, tuple(regions), "" if made_by else crs, made_by)


def write(path: pathlib.Path, features: Iterable[Feature], *, about: str = "") -> None:
    """Write features, in px of level 0, as QuPath's annotations: a FeatureCollection.

    Ids are made of the content, and of `about`, so that equal features are equal bytes.
    """
    body = ",\n".join(_as_text(feature, about) for feature in features)
    text = '{"type": "FeatureCollection", "features": [\n' + body + "\n]}\n"
    atomic.write_text(pathlib.Path(path), text)


def _as_text(feature: Feature, about: str) -> str:
    # Not at the top: a machine that only computes need not have it.
    import shapely

    rounded = shapely.transform(feature.geometry, lambda corners: np.round(corners, _PLACES))
    properties: dict[str, Any] = {"objectType": "annotation"}
    if feature.name:
        properties["name"] = feature.name
    if feature.class_name:
        properties["classification"] = {"name": feature.class_name}
        if feature.colour:
            properties["classification"]["color"] = list(feature.colour)
    geometry, facts = shapely.to_geojson(rounded), json.dumps(properties, ensure_ascii=False)
    number = uuid.uuid5(uuid.NAMESPACE_OID, f"{about}\n{facts}\n{geometry}")
    # The geometry is text already, and may have a million corners.
    return f'{{"type": "Feature", "id": "{number}", "geometry": {geometry}, "properties": {facts}}}'


def _facts(
    properties: Mapping[str, Any], class_property: str
) -> tuple[str, str, tuple[int, int, int] | None]:
    """Name, class and colour."""
    said = properties.get(class_property or "classification")
    colour = properties.get("color", properties.get("colorRGB"))
    if isinstance(said, Mapping):
        colour = said.get("color", said.get("colorRGB", colour))
        # A class of a class, since QuPath 0.5: Tumor: Positive.
        names = said.get("names")
        said = ": ".join(map(str, names)) if isinstance(names, list) else said.get("name")
    return _text(properties.get("name")), _text(said), _colour(colour)


def _text(value: Any) -> str:
    if value is None or isinstance(value, Mapping | list):
        return ""
    # Half of a pair of surrogates, which JSON may hold, could not be written.
    return str(value).encode("utf-8", "replace").decode()


def _colour(value: Any) -> tuple[int, int, int] | None:
    """Of three numbers, or one that QuPath packs: alpha, red, green, blue, of 32 bits with sign."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value >> 16) & 255, (value >> 8) & 255, value & 255
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, int) for v in value):
        red, green, blue = (min(max(v, 0), 255) for v in value)
        return red, green, blue
    return None


def _crs(path: parts.Place, values: Any) -> str:
    """The coordinate system that a file says; "" for none. Codes alone are taken: a text may name a
    file or an address, which nothing here shall open."""
    if not isinstance(values, Mapping) or values.get("crs") is None:
        return ""
    crs = values["crs"]
    properties = crs.get("properties") if isinstance(crs, Mapping) else None
    name = str(properties.get("name")) if isinstance(properties, Mapping) else str(crs)
    match = _CODE.fullmatch(name)
    if match and match["who"].upper() == "EPSG" and match["code"].isdecimal():
        return f"EPSG:{int(match['code'])}"
    # Longitude and latitude, as GDAL calls them.
    if match and match["code"].upper() in ("CRS84", "84"):
        return "EPSG:4326"
    raise SlideError(f"expected a crs such as EPSG:32633 in {path}, got {parts.short(name)}")


def _knows_pixels_alone(features: Sequence[Mapping[str, Any]], crs: str) -> bool:
    """Whether QuPath wrote a file, or TRIDENT, which says Web Mercator (EPSG:3857) of its pixels
    and calls pieces of tissue `tissue_id`."""
    keys = [(f.get("properties") or {}).keys() for f in features]
    if crs in ("", "EPSG:3857") and all("tissue_id" in k for k in keys):
        return True
    legacy = any(str(f.get("id", "")).startswith("Path") for f in features)
    return not crs and (legacy or any({"objectType", "object_type"} & k for k in keys))
