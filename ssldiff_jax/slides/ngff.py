"""What OME-Zarr says about an image: its axes, levels, scale and channels.

Source: the specification of next-generation file formats (NGFF), versions 0.4 and 0.5.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.slides import protocol, scale
from ssldiff_jax.slides.protocol import PixelSize, SlideError

SUFFIX = ".zarr"
DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
"""Files that make a folder a Zarr group or array."""
VERSIONS = ("0.4", "0.5")

_PREFIXES = {
    "": 1e6, "yotta": 1e30, "zetta": 1e27, "exa": 1e24, "peta": 1e21, "tera": 1e18, "giga": 1e15,
    "mega": 1e12, "kilo": 1e9, "hecto": 1e8, "deca": 1e7, "deci": 1e5, "centi": 1e4, "milli": 1e3,
    "micro": 1.0, "nano": 1e-3, "pico": 1e-6, "femto": 1e-9, "atto": 1e-12, "zepto": 1e-15,
    "yocto": 1e-18,
}  # fmt: skip
_MICRONS = {
    **{prefix + end: size for prefix, size in _PREFIXES.items() for end in ("meter", "metre")},
    "angstrom": 1e-4, "inch": 25_400.0, "foot": 304_800.0, "yard": 914_400.0,
    # Not of the specification, and what is found.
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3,
    "cm": 1e4, "m": 1e6,
}  # fmt: skip
_RGB = ("FF0000", "00FF00", "0000FF")
_NAMES = ("t", "c", "z", "y", "x")


@dataclasses.dataclass(frozen=True)
class Multiscale:
    """One image in several sizes.

    Attributes:
        axes: names in the order of the arrays' dimensions; "y" and "x" are among them.
        paths: of the levels' arrays within the group, finest first.
        pixel_size: of the finest.
        colours: of the channels as six hexadecimal digits; empty where nothing says them.
        labels: what they are called; as many, "" where nothing says it.
    """

    axes: tuple[str, ...]
    paths: tuple[str, ...]
    pixel_size: PixelSize
    colours: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def is_rgb(self) -> bool:
        """Whether nothing says that three channels are other colours than red, green and blue."""
        return self.colours in ((), _RGB)


def is_named(source: str | pathlib.Path) -> bool:
    """Whether a path or an address leads to a Zarr store, or into one, by its name."""
    return any(part.lower().endswith(SUFFIX) for part in _parts(source))


def is_folder(path: str | pathlib.Path) -> bool:
    """Whether a path is a folder that holds a Zarr group or array, or is called so."""
    if not os.path.isdir(path):
        return False
    if pathlib.Path(path).suffix.lower() == SUFFIX:
        return True
    return any(os.path.isfile(os.path.join(path, name)) for name in DOCUMENTS)


def is_part(path: pathlib.Path) -> bool:
    """Whether a group or array belongs to an image further up, or says what images are called."""
    inside = path.name == "OME" and is_named(path.parent)
    return inside or any(_has_image(folder) for folder in path.parents if is_named(folder))


def _has_image(folder: pathlib.Path) -> bool:
    for name in ("zarr.json", ".zattrs"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            attributes = json.loads((folder / name).read_text())
            attributes = attributes.get("attributes", {}) if name == "zarr.json" else attributes
            if metadata(attributes).get("multiscales"):
                return True
    return False


def name_of(source: str) -> str:
    """The name of a slide: X.zarr of `…/X.zarr`, X_0.zarr of the image `…/X.zarr/0` in it."""
    parts = _parts(source)
    first = next(i for i, part in enumerate(parts) if part.lower().endswith(SUFFIX))
    stem, suffix = parts[first][: -len(SUFFIX)], parts[first][-len(SUFFIX) :]
    return "_".join([stem, *parts[first + 1 :]]) + suffix


def _parts(source: str | pathlib.Path) -> list[str]:
    return [part for part in str(source).partition("?")[0].split("/") if part]


def metadata(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of NGFF among the attributes of a group: 0.5 has a key of its own for them."""
    inside = attributes.get("ome")
    return inside if isinstance(inside, Mapping) else attributes


def multiscale(attributes: Mapping[str, Any], source: str) -> Multiscale:
    """The image of a group with such attributes.

    Raises SlideError where it is none, or of another version.
    """
    found = metadata(attributes)
    if not found.get("multiscales"):
        raise SlideError(f"expected an OME-Zarr image, got {source}: {_what_else(found)}")
    try:
        image = found["multiscales"][0]
        version = str(found.get("version") or image.get("version") or VERSIONS[0])
        if version not in VERSIONS:
            raise SlideError(
                f"expected OME-Zarr of version {' or '.join(VERSIONS)}, got version {version} in "
                f"{source}"
            )
        return _multiscale(image, found.get("omero"))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SlideError):
            if source not in str(error):
                raise SlideError(f"{error} in {source}") from error
            raise
        detail = f"{type(error).__name__} {' '.join(str(error).split())}"
        raise SlideError(
            f"expected multiscales metadata of NGFF {' or '.join(VERSIONS)}, got {source}: {detail}"
        ) from error


def _what_else(found: Mapping[str, Any]) -> str:
    if "plate" in found or "well" in found:
        return "a plate of many images: name one of them, as in X.zarr/A/1/0"
    kind = found.get("encoding-type") or found.get("spatialdata_attrs")
    if kind:
        name = kind if isinstance(kind, str) else "a SpatialData element"
        return f"{name}, no image (the images of SpatialData are X.zarr/images/NAME)"
    return "no multiscales metadata"


def _multiscale(image: Mapping[str, Any], omero: Mapping[str, Any] | None) -> Multiscale:
    axes = tuple(axis["name"] for axis in image["axes"])
    if sorted(axes) != sorted(set(axes)) or not {"y", "x"} <= set(axes) <= set(_NAMES):
        raise SlideError(f"expected axes y and x, and of others t, c, z, got {', '.join(axes)}")
    units = {axis["name"]: axis.get("unit") for axis in image["axes"]}
    datasets = image["datasets"]
    paths = tuple(str(dataset["path"]) for dataset in datasets)
    if not paths:
        raise SlideError("expected at least one level, got none")
    every = [
        *datasets[0].get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ]
    channels = (omero or {}).get("channels") or ()
    colours = tuple(str(c.get("color", "")).lstrip("#").upper()[:6] for c in channels)
    labels = tuple(str(c.get("label") or "") for c in channels)
    return Multiscale(axes, paths, _pixel_size(every, axes, units), colours, labels)


def _pixel_size(
    transformations: list[Mapping[str, Any]], axes: tuple[str, ...], units: Mapping[str, str | None]
) -> PixelSize:
    """Of all scales one after the other, in the units of the axes."""
    scales = [t["scale"] for t in transformations if t.get("type") == "scale"]
    if not scales:
        return PixelSize(absent=f"{protocol.NO_MPP} (no scale transformation)")
    for values in scales:
        # Of more numbers, another axis' would be taken for that of pixels.
        if len(values) != len(axes):
            raise SlideError(
                f"expected a scale of {len(axes)} numbers, for {', '.join(axes)}, got {values}"
            )
    across, down = (
        math.prod(float(values[axes.index(name)]) for values in scales) for name in ("x", "y")
    )
    if not all(math.isfinite(side) and side > 0 for side in (across, down)):
        return PixelSize(absent=f"expected a scale above 0, got {down:g} × {across:g}")
    unknown = [units[name] for name in ("x", "y") if units[name] not in _MICRONS]
    if unknown:
        named = "without a unit" if None in unknown else f"in {unknown[0]!r}"
        return PixelSize(absent=f"expected a scale in a unit of length, got {across:g} {named}")
    x, y = across * _MICRONS[units["x"]], down * _MICRONS[units["y"]]
    if not scale.is_square(x, y):
        return PixelSize(wrong=f"expected square pixels, got {y:g} × {x:g} µm by its scale")
    return PixelSize((x + y) / 2)
