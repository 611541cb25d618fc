"""What the files of scanners and microscopes say about their scale, and whether to believe it."""

import contextlib
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from ssldiff_jax.slides import protocol
from ssldiff_jax.slides.protocol import PixelSize

_INCH_MICRONS = 25_400
_MICROSCOPIC = (0.05, 10)  # µm per pixel that a scanner may have
_TOLERANCE = 0.01  # sides of a pixel, and two records of them, may differ by this part
_TAGS, _OME, _SCANNER, _IMAGEJ = "the resolution tags", "OME-XML", "the scanner", "ImageJ"
_MICRONS = {
    "pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4,
    "m": 1e6, "micron": 1.0, "microns": 1.0, r"\u00B5m": 1.0,
    # The same, after programs that took one encoding for another: no other unit looks so.
    "Âµm": 1.0, "Î¼m": 1.0, "\ufffdm": 1.0, "?m": 1.0,
}  # fmt: skip
_WIDTH, _HEIGHT, _DESCRIPTION, _X, _Y, _UNIT = 256, 257, 270, 282, 283, 296  # tags of a TIFF
_INCH, _CENTIMETRE = 2, 3  # values of ResolutionUnit

_Record = tuple[float, float]  # µm per pixel, across and down


def of_openslide(properties: Mapping[str, str]) -> PixelSize:
    """By what OpenSlide reads from a file, and what the file describes beside it."""
    records = {}
    vendor = properties.get("openslide.vendor")
    if vendor != "generic-tiff":
        records[_SCANNER] = _record(*(properties.get(f"openslide.mpp-{axis}") for axis in "xy"))
    sides = [properties.get(f"tiff.{axis}Resolution") for axis in "XY"]
    unit = properties.get("tiff.ResolutionUnit")
    if vendor in ("generic-tiff", "aperio"):
        records[_TAGS] = _record(*sides, per=1e4) if unit == "centimeter" else None
    if vendor != "generic-tiff":
        return agreed(records)
    size = tuple(properties.get(f"openslide.level[0].{side}") for side in ("width", "height"))
    records = _described(properties.get("tiff.ImageDescription", ""), size) | records
    return _with_inches(agreed(records), sides[0] if unit == "inch" else None)


def of_tiff(tags: Mapping[int, object]) -> PixelSize:
    """By the tags of a TIFF's first page."""
    unit, sides = tags.get(_UNIT), (tags.get(_X), tags.get(_Y))
    tagged = _record(*sides, per=1e4) if unit == _CENTIMETRE else None
    described = str(tags.get(_DESCRIPTION, ""))
    with contextlib.suppress(UnicodeError):
        described = described.encode("latin-1").decode()  # Pillow takes UTF-8 for Latin-1
    records = _described(described, (tags.get(_WIDTH), tags.get(_HEIGHT)))
    size = agreed(records | {_TAGS: tagged, _IMAGEJ: _of_imagej(described, sides)})
    return _with_inches(size, sides[0] if unit == _INCH else None)


def _with_inches(size: PixelSize, per_inch: object) -> PixelSize:
    """The same, telling a resolution in inches that a scanner could have: it is nearly always a
    printer's, and is not believed."""
    record = _record(per_inch, per_inch, per=_INCH_MICRONS)
    if (
        size.absent != protocol.NO_MPP
        or not record
        or not _MICROSCOPIC[0] <= record[0] < _MICROSCOPIC[1]
    ):
        return size
    return PixelSize(
        absent=f"{size.absent} but {float(per_inch):g} dots per inch, a printer's unit"
    )


def agreed(records: Mapping[str, _Record | None]) -> PixelSize:
    """The one size that all records agree on, by the name of each.

    Resolution tags that no scanner has are a printer's, and are ignored.
    """
    given = {name: record for name, record in records.items() if record is not None}
    sizes = {name: sum(record) / 2 for name, record in given.items()}
    low, high = _MICROSCOPIC
    believed = {name: size for name, size in sizes.items() if low <= size <= high}
    for name in believed:
        x, y = given[name]
        if not is_square(x, y):
            return PixelSize(wrong=f"expected square pixels, got {y:g} × {x:g} µm by {name}")
    if not believed:
        absurd = [size for name, size in sizes.items() if name != _TAGS]
        message = f"expected {low}…{high} microns per pixel, got {absurd[0]:g}" if absurd else ""
        return PixelSize(absent=message or protocol.NO_MPP)
    if max(believed.values()) > (1 + _TOLERANCE) * min(believed.values()):
        message = " and ".join(f"{size:g} by {name}" for name, size in believed.items())
        return PixelSize(wrong=f"expected one number of microns per pixel, got {message}")
    return PixelSize(next(iter(believed.values())))


def is_square(x: float, y: float) -> bool:
    """Whether a pixel of such sides is taken for a square."""
    return abs(x - y) <= _TOLERANCE * max(x, y)


def _record(x: object, y: object, *, per: float = 0.0) -> _Record | None:
    """Two numbers; with `per`, pixels within that many microns."""
    try:
        sides = float(x), float(y)
        return (per / sides[0], per / sides[1]) if per else sides
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _described(text: str, size: tuple[object, object]) -> dict[str, _Record | None]:
    """What the description of a TIFF says about its image, which has a width and a height."""
    if text.startswith("Aperio"):
        match = re.search(r"\bMPP\s*=\s*([^|\s]+)", text)
        side = match.group(1).replace(",", ".") if match else None
        return {_SCANNER: _record(side, side)}
    return {_OME: _of_ome(text, size)}


def _of_imagej(text: str, sides: tuple[object, object]) -> _Record | None:
    """What ImageJ writes: the unit in its description, how many pixels it has in the resolution."""
    match = (
        re.search(r"^unit=(.*?)\s*$", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    )
    microns = _MICRONS.get(match.group(1)) if match else None
    return _record(*sides, per=microns) if microns else None


def _of_ome(text: str, size: tuple[object, object]) -> _Record | None:
    """Physical size of the image of OME-XML that has that size, of the first where none has it:
    pictures of the glass and its label may stand before the slide."""
    # No OME-XML has entities, which may expand without end.
    if "OME" not in text or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    # It is text already: an encoding that it declares (.NET's utf-16) is that of no bytes here.
    text = re.sub(r"^\s*<\?xml.*?\?>", "", text.strip("\0\ufeff"), flags=re.DOTALL)
    try:
        elements = ElementTree.fromstring(text.strip().encode(errors="replace")).iter()
    except ElementTree.ParseError:
        return None
    pixels = [element for element in elements if element.tag.rpartition("}")[2] == "Pixels"]
    shape = tuple(str(side) for side in size)
    same = [element for element in pixels if (element.get("SizeX"), element.get("SizeY")) == shape]
    for element in same or pixels:
        return _record(*(_microns(element, f"PhysicalSize{axis}") for axis in "XY"))
    return None


def _microns(element: ElementTree.Element, name: str) -> float | None:
    try:
        return float(element.get(name)) * _MICRONS[element.get(f"{name}Unit", "µm")]
    except (KeyError, TypeError, ValueError):
        return None
