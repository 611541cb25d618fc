"""Cells of a large image as GeoJSON, in the form that QuPath reads: a square each, with figures as
measurements and its class.

Keys are those of QuPath 0.4 and later, whose `measurements` are a map of names to numbers.
"""

import dataclasses
import json
import math
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from ssldiff_jax.evaluation.metrics import large_image
from ssldiff_jax.formats import atomic

# Apart for those who do not see all colours (Okabe and Ito 2008).
_COLOURS = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
    (240, 228, 66),
)  # fmt: skip
_DIGITS = 6  # of a measurement, after the point


@dataclasses.dataclass(frozen=True)
class Lattice:
    """Where cells lie in an image: `rows` × `cols` squares of `side` px from (left, top) on."""

    rows: int
    cols: int
    side: float
    left: float = 0.0
    top: float = 0.0

    def seen(self, factor: float, left: float, top: float) -> "Lattice":
        """The same in pixels of which `factor` are one of these, from (left, top) on, px of
        these."""
        return Lattice(
            self.rows, self.cols, self.side * factor,
            (self.left + left) * factor, (self.top + top) * factor,
        )  # fmt: skip

    def ring(self, number: int) -> list[list[float]]:
        """The corners of a cell (x, y), closed; in the order that is counter-clockwise of these
        numbers, as RFC 7946 has it."""
        row, col = divmod(number, self.cols)
        west, east = (_plain(self.left + n * self.side) for n in (col, col + 1))
        north, south = (_plain(self.top + n * self.side) for n in (row, row + 1))
        return [[west, north], [east, north], [east, south], [west, south], [west, north]]

    def name(self, number: int) -> str:
        """What a cell is called."""
        return "row {}, column {}".format(*divmod(number, self.cols))

    @property
    def centres(self) -> Float[np.ndarray, "N 2"]:
        """(x, y) of each cell, in reading order."""
        row, col = np.divmod(np.arange(self.rows * self.cols), self.cols)
        return np.stack(
            [self.left + (col + 0.5) * self.side, self.top + (row + 0.5) * self.side], 1
        )


@dataclasses.dataclass(frozen=True, eq=False)
class CellFigures:
    """What is known of each cell, in reading order.

    Attributes:
        measurements: a number of each cell by what it is; not finite where it is not known.
        classes: the name of its class, "" where it is not known; None knows none.
        class_names: all of them, whose places choose the colours.
    """

    measurements: Mapping[str, Num[np.ndarray, "N"]]
    classes: Sequence[str] | None = None
    class_names: Sequence[str] = ()

    def require(self, count: int) -> None:
        """Raises ValueError for figures of another number of cells."""
        sizes = {name: len(values) for name, values in self.measurements.items()}
        sizes |= {"classes": len(self.classes)} if self.classes is not None else {}
        for name, size in sizes.items():
            if size != count:
                raise ValueError(f"{name} must have a value for each of {count} cells, got {size}")


def of_matches(matches: Mapping[str, large_image.CellMatches]) -> dict[str, np.ndarray]:
    """Measurements of what each of several networks, by name, finds of the cells."""
    measurements: dict[str, np.ndarray] = {}
    for name, found in matches.items():
        measurements[f"{name}: similarity"] = found.similarity
        measurements[f"{name}: retrieval rank"] = found.rank
    return measurements


def write(path: pathlib.Path, lattice: Lattice, figures: CellFigures) -> None:
    """Write a FeatureCollection with a feature for each cell, a line each; it appears whole or not
    at all. Raises ValueError for figures of another number of cells."""
    count = lattice.rows * lattice.cols
    figures.require(count)

    def fill(at: pathlib.Path) -> None:
        with at.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            # One by one: a slide may have a hundred thousand.
            for number in range(count):
                feature = _feature(lattice, figures, number)
                text = json.dumps(feature, allow_nan=False, ensure_ascii=False)
                file.write(f"{',' if number else ''}\n{text}")
            file.write("\n]}\n")

    atomic.write_atomic(path, fill)


def _feature(lattice: Lattice, figures: CellFigures, number: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "objectType": "tile",
        "name": lattice.name(number),
    }
    name = figures.classes[number] if figures.classes is not None else ""
    if name:
        properties["classification"] = {"name": name, "color": _colour(name, figures.class_names)}
    properties["measurements"] = {
        key: round(float(values[number]), _DIGITS)
        for key, values in figures.measurements.items()
        if math.isfinite(values[number])
    }
    geometry = {"type": "Polygon", "coordinates": [lattice.ring(number)]}
    content = json.dumps([geometry, properties], sort_keys=True)
    # Of the content: the same cells are the same objects, however often they are written.
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, content))
    return {"type": "Feature", "id": identity, "geometry": geometry, "properties": properties}


def _colour(name: str, names: Sequence[str]) -> list[int]:
    place = list(names).index(name) if name in names else 0
    return list(_COLOURS[place % len(_COLOURS)])


def _plain(value: float) -> float:
    """A whole number of pixels as such."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded
