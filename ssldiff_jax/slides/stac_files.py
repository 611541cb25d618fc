"""STAC files as lists of slides: an item, a static catalog or collection, a list of items; each
item gives one raster."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from ssldiff_jax.slides import attempts, remote, warn
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides.protocol import SlideError

_LOG = logging.getLogger(__name__)

SUFFIXES = (".json", ".geojson")
"""Of STAC files, by which they are told from slides."""
ASSETS = ("visual", "image", "data")
"""Keys of the asset that is taken where none is named, in this order; else the only GeoTIFF."""
_GEOTIFF = ("image/tiff", "image/vnd.stac.geotiff")
_RASTER = (*_GEOTIFF, "image/jp2", "image/png", "image/jpeg")
_TIFF_SUFFIXES = (".tif", ".tiff")
_NEAR = ("file://", "local://")  # as fsspec calls them
_SHOWN = 12  # assets that an error names
_MOST_FILES = 100_000  # of one catalog: links that run in a circle are followed once


def is_stac(source: str) -> bool:
    """Whether a part of `config.data.slides` names a STAC file."""
    path = urllib.parse.urlsplit(source).path if remote.is_remote(source) else source
    return path.lower().endswith(SUFFIXES)


def is_named(spec: str) -> bool:
    """Whether one of the comma-separated parts of `config.data.slides` is a STAC file."""
    return any(is_stac(part.strip()) for part in spec.split(","))


def slides_of(source: str, asset: str = "") -> list[str]:
    """Paths and addresses of the rasters that a STAC file lists, in its order.

    An address that does not answer, and a file that a catalog links to and that is not there, is
    returned itself, so that who reads it says so and goes on with the others. Raises SlideError for
    a file that is no STAC, and where no item of it has a raster; one that has none among others is
    named in the log.
    """
    items = list(_items(source))
    if not items:
        raise SlideError(f"expected a STAC file with items, got none in {source}")
    rasters, reasons = [], []
    for item in items:
        try:
            rasters.append(item.raster(asset))
        except SlideError as error:
            reasons.append(str(error))
    if not rasters:
        raise SlideError(reasons[0])
    for reason in reasons:
        warn.once(f"left out: {reason}")
    return list(dict.fromkeys(rasters))


def query_again() -> None:
    """Read files behind addresses again: a command begins."""
    _far.cache_clear()


class _SilentError(Exception):
    """What lies behind an address cannot be had."""


@dataclasses.dataclass(frozen=True)
class _Item:
    """A STAC item, and the file that its relative links start from."""

    values: Mapping[str, Any]
    base: str

    @property
    def name(self) -> str:
        return f"item {self.values.get('id')!r} of {self.base}"

    def raster(self, asked: str) -> str:
        """The path or address of its raster."""
        assets = self.values.get("assets")
        assets = assets if isinstance(assets, Mapping) else {}
        usable = {key: asset for key, asset in assets.items() if _is_of(asset, _RASTER)}
        named = (asked,) if asked else ASSETS
        key = next((key for key in named if key in usable), None)
        if key is None and not asked:
            tiffs = [key for key, asset in usable.items() if _is_of(asset, _GEOTIFF)]
            key = tiffs[0] if len(tiffs) == 1 else None
        if key is None:
            wanted = asked or f"{', '.join(ASSETS)} or one GeoTIFF"
            shown = [f"{key} ({_type(asset)})" for key, asset in [*assets.items()][:_SHOWN]]
            shown += [f"{len(assets) - _SHOWN} more"] if len(assets) > _SHOWN else []
            held = " ".join(", ".join(shown).split())  # on one line, whatever the keys hold
            raise SlideError(
                f"expected an asset that is a raster ({wanted}), got {held or 'no assets'} in "
                f"{self.name}: --config.data.asset names one"
            )
        return _joined(self.base, usable[key]["href"])


@dataclasses.dataclass(frozen=True)
class _Unread:
    """A STAC file that cannot be had."""

    file: str

    def raster(self, _asked: str) -> str:
        """Itself, in the place of what it would have listed."""
        return self.file


def _type(asset: Any) -> str:
    return str(asset.get("type") or "no type") if isinstance(asset, Mapping) else "no asset"


def _is_of(asset: Any, types: tuple[str, ...]) -> bool:
    """Whether an asset is of some media types; of one that does not say, its name tells."""
    href = asset.get("href") if isinstance(asset, Mapping) else None
    if not isinstance(href, str) or not href or "\0" in href:
        return False
    if asset.get("type"):
        return str(asset["type"]).partition(";")[0].strip().lower() in types
    suffix = pathlib.PurePosixPath(urllib.parse.urlsplit(href).path).suffix.lower()
    return suffix in (_TIFF_SUFFIXES if types == _GEOTIFF else slide_lib.SUFFIXES)


def _items(source: str) -> Iterator[_Item | _Unread]:
    """Those of a file, and of all that it links to."""
    left, seen = [source], set()
    while left:
        file = left.pop(0)
        if file in seen or len(seen) >= _MOST_FILES:
            continue
        seen.add(file)
        is_linked = file != source and not remote.is_remote(file)
        try:
            values = None if is_linked and not os.path.exists(file) else _values(file)
        except _SilentError:
            values = None
        if values is None:
            yield _Unread(file)
            continue
        kind = values.get("type")
        if kind == "Feature" and "stac_version" in values:
            yield _Item(values, file)
        elif kind == "FeatureCollection":
            yield from _listed(values, file)
        elif kind in ("Collection", "Catalog") and "stac_version" in values:
            left += [_joined(file, href) for href in _links(values, ("item", "child"))]
        else:
            version = "" if "stac_version" in values else " without stac_version"
            raise SlideError(
                "expected a STAC item, collection, catalog or list of items, got "
                f"{file}: type {kind!r}{version}"
            )


def _listed(values: Mapping[str, Any], file: str) -> Iterator[_Item]:
    features = values.get("features")
    for number, feature in enumerate(features if isinstance(features, list) else ()):
        if not isinstance(feature, Mapping) or "stac_version" not in feature:
            raise SlideError(
                f"expected a list of STAC items, got {file}: feature {number} has no stac_version"
            )
        own = _links(feature, ("self",))
        # What a server answered to a search is no file beside its items' rasters.
        yield _Item(feature, _joined(file, own[0]) if own else file)


def _links(values: Mapping[str, Any], kinds: tuple[str, ...]) -> list[str]:
    links = values.get("links")
    return [
        str(link["href"])
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, Mapping) and link.get("rel") in kinds and "href" in link
    ]


def _values(file: str) -> Mapping[str, Any]:
    text = _far(file) if remote.is_remote(file) else _near(file)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter of lists in lists
        raise SlideError.because(file, "a STAC file", error) from None
    if not isinstance(values, Mapping):
        raise SlideError(f"expected a STAC file, got {file}: a {type(values).__name__}")
    return values


def _near(file: str) -> bytes:
    try:
        return pathlib.Path(file).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SlideError(f"expected a STAC file, got {file}: {reason}") from None


@functools.lru_cache(4096)  # several checks of a command ask
def _far(address: str) -> bytes:
    try:
        return attempts.until_answered(address, lambda: remote.read_bytes(address))
    except Exception as error:  # every file system has its own
        _LOG.warning("%s: %s", address, " ".join(str(error).split()) or type(error).__name__)
        raise _SilentError from error


def _joined(base: str, href: str) -> str:
    """An address, or a path from the folder of a file."""
    is_near = href.startswith(_NEAR) or "::" in href  # chains of fsspec may end at a local file
    if remote.is_remote(base) and remote.is_remote(href) and is_near:
        raise SlideError(f"expected an address in {base}, got one of this machine: {href}")
    if href.startswith("file://"):
        return urllib.parse.unquote(urllib.parse.urlsplit(href).path)
    if remote.is_remote(href):
        return href
    if remote.is_remote(base):
        scheme, _, rest = base.partition("://")
        # urljoin knows few schemes, and s3 is none of them.
        return scheme + urllib.parse.urljoin(f"http://{rest}", href).removeprefix("http")
    path = os.path.normpath(os.path.join(os.path.dirname(base), href))
    unquoted = urllib.parse.unquote(path)
    return unquoted if os.path.exists(unquoted) and not os.path.exists(path) else path
