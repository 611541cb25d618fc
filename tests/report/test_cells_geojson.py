"""Cells as GeoJSON: keys and types that QuPath's reader takes, valid polygons, plain numbers."""

import itertools
import json
import re
import uuid

import numpy as np
import pytest

from ssldiff_jax.report import cells

# What PathObjectTypeAdapter of QuPath 0.4 to 0.6 looks for in a feature and in its properties.
FEATURE = {"type", "id", "geometry", "nucleusGeometry", "properties"}
PROPERTIES = {
    "objectType", "name", "color", "classification", "isLocked", "isMissing", "measurements",
    "metadata", "childObjects",
}  # fmt: skip
OBJECT_TYPES = {"tile", "cell", "tmaCore", "detection", "root", "annotation"}


def shoelace(ring):
    """Twice the signed area; positive where the corners go counter-clockwise."""
    return sum(x * b - a * y for (x, y), (a, b) in itertools.pairwise(ring))


def require_qupath(collection, count, side):
    """All that QuPath reads is of the type that it reads it as; nothing is beside it."""
    assert set(collection) == {"type", "features"}
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == count
    assert len({feature["id"] for feature in collection["features"]}) == count
    for feature in collection["features"]:
        assert set(feature) <= FEATURE
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        assert shoelace(ring) == pytest.approx(2 * side**2)
        properties = feature["properties"]
        assert set(properties) <= PROPERTIES
        assert properties["objectType"] in OBJECT_TYPES
        assert isinstance(properties["name"], str)
        if "classification" in properties:
            named = properties["classification"]
            assert set(named) == {"name", "color"}
            assert named["name"]
            assert len(named["color"]) == 3
            assert all(isinstance(c, int) and 0 <= c <= 255 for c in named["color"])
        for name, value in properties["measurements"].items():
            assert name
            assert type(value) in (int, float)
            assert np.isfinite(value)


def figures(count=6, **more):
    values = {
        "judge: similarity": np.linspace(-1, 1, count),
        "judge: retrieval rank": 1 + np.arange(count),
    }
    return cells.CellFigures(values, **more)


def written(path, *args):
    cells.write(path, *args)
    text = path.read_text(encoding="utf-8")
    # JSON has no such numbers, and readers in Java refuse them.
    assert not re.search(r"\b(NaN|Infinity)\b", text)
    return json.loads(text)


def test_cells_are_tiles_that_qupath_reads(tmp_path):
    names = ("nuclei", "stroma", "empty")
    found = figures(
        classes=["stroma", "nuclei", "", "empty", "stroma", "stroma"], class_names=names
    )
    back = written(tmp_path / "cells.geojson", cells.Lattice(2, 3, 64), found)
    require_qupath(back, 6, 64)
    fifth = back["features"][4]
    assert fifth["geometry"]["coordinates"] == [
        [[64, 64], [128, 64], [128, 128], [64, 128], [64, 64]]
    ]
    assert fifth["properties"]["name"] == "row 1, column 1"
    assert fifth["properties"]["measurements"] == {
        "judge: similarity": 0.6, "judge: retrieval rank": 5.0
    }  # fmt: skip
    named = [f["properties"].get("classification") for f in back["features"]]
    assert [n and n["name"] for n in named] == [
        "stroma",
        "nuclei",
        None,
        "empty",
        "stroma",
        "stroma",
    ]
    colours = {n["name"]: tuple(n["color"]) for n in named if n}
    assert len(set(colours.values())) == 3
    assert named[0] == named[4]


def test_cells_lie_where_the_reference_does_in_its_slide(tmp_path):
    """736 px right, 2077 down at 0.5 µm/px of a slide of 0.25 µm/px, whose pixels are half."""
    lattice = cells.Lattice(2, 3, 64).seen(2.0, 736, 2077)
    back = written(tmp_path / "slide.geojson", lattice, figures())
    require_qupath(back, 6, 128)
    corners = [f["geometry"]["coordinates"][0][0] for f in back["features"]]
    assert corners == [[1472 + 128 * col, 4154 + 128 * row] for row in range(2) for col in range(3)]
    odd = cells.Lattice(1, 2, 64).seen(0.5 / 0.37, 10, 0)
    back = written(tmp_path / "odd.geojson", odd, figures(2))
    sides = [f["geometry"]["coordinates"][0] for f in back["features"]]
    # No gap and no overlap between neighbours, rounded or not.
    assert sides[0][1] == sides[1][0]
    assert sides[0][0] == pytest.approx([10 * 0.5 / 0.37, 0], abs=1e-3)


def test_polygons_are_valid_and_cover_the_image_once(tmp_path):
    shapely = pytest.importorskip("shapely")
    back = written(tmp_path / "cells.geojson", cells.Lattice(4, 5, 32), figures(20))
    shapes = [shapely.from_geojson(json.dumps(f["geometry"])) for f in back["features"]]
    assert all(shape.is_valid and shape.exterior.is_ccw for shape in shapes)
    union = shapely.union_all(shapes)
    assert union.equals(shapely.box(0, 0, 160, 128))
    assert sum(shape.area for shape in shapes) == union.area


def test_what_is_not_known_is_left_out(tmp_path):
    values = {"judge: similarity": np.array([0.5, np.nan]), "rank": np.array([np.inf, 2.0])}
    back = written(tmp_path / "c.geojson", cells.Lattice(1, 2, 8), cells.CellFigures(values))
    found = [f["properties"]["measurements"] for f in back["features"]]
    assert found == [{"judge: similarity": 0.5}, {"rank": 2.0}]
    assert not any("classification" in f["properties"] for f in back["features"])


def test_names_that_mean_something_elsewhere_are_text(tmp_path):
    """A formula, markup, quotes and a line break come back as they went in."""
    odd = ['=HYPERLINK("x")', "<script>alert(1)</script>", 'a"b\\c', "two\nlines", "Gefäß", "🔬"]
    found = figures(classes=odd, class_names=tuple(odd))
    back = written(tmp_path / "cells.geojson", cells.Lattice(2, 3, 8), found)
    require_qupath(back, 6, 8)
    assert [f["properties"]["classification"]["name"] for f in back["features"]] == odd


def test_the_same_cells_are_the_same_objects(tmp_path):
    ids = lambda collection: {feature["id"] for feature in collection["features"]}
    first = written(tmp_path / "first.geojson", cells.Lattice(2, 3, 8), figures())
    again = written(tmp_path / "again.geojson", cells.Lattice(2, 3, 8), figures())
    moved = written(tmp_path / "moved.geojson", cells.Lattice(2, 3, 8, left=8), figures())
    assert first == again
    assert len(ids(first)) == 6
    assert not ids(first) & ids(moved)


def test_figures_of_other_cells_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a value for each of 4 cells, got 6"):
        cells.write(tmp_path / "cells.geojson", cells.Lattice(2, 2, 8), figures())
    assert not list(tmp_path.iterdir())
