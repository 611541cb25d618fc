"""GeoJSON as QuPath, QGIS and TRIDENT write it, against shapely, geopandas, pyproj and rasterio."""

import gzip
import json
import logging
import os
import pathlib
import re

import numpy as np
import pytest
import rasterio
import shapely

from ssldiff_jax.slides import geojson, outlined
from ssldiff_jax.slides.protocol import SlideError

# A scene of NAIP, 5 m, of North Dakota; without it the test is skipped.
NAIP = pathlib.Path(os.environ.get("SSLDIFF_NAIP", "none")) / "20090818.tif"
SQUARE = [[10, 20], [110, 20], [110, 70], [10, 70], [10, 20]]
HOLE = [[20, 30], [30, 30], [30, 40], [20, 40], [20, 30]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": [list(ring) for ring in rings]}


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features, **more):
    return {"type": "FeatureCollection", **more, "features": list(features)}


@pytest.fixture
def written(tmp_path):
    def written(value, name="a.geojson"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return written


@pytest.fixture
def areas(golden_path):
    return json.loads(golden_path("annotations_areas.json").read_text())


@pytest.fixture
def raster(tmp_path):
    """The frame of a GeoTIFF at the place that the recordings were made for."""
    path = tmp_path / "scene.tif"
    transform = rasterio.Affine(5, 0, 485900, 0, -5, 5209247)
    with rasterio.open(
        path, "w", driver="GTiff", width=934, height=724, count=1, dtype="uint8",
        crs="EPSG:26914", transform=transform,
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 724, 934), np.uint8))
    return outlined.Frame.of(path, (724, 934))


@pytest.mark.parametrize(
    "value",
    [
        collection(feature(polygon(SQUARE, HOLE))),
        [feature(polygon(SQUARE, HOLE))],
        feature(polygon(SQUARE, HOLE)),
        polygon(SQUARE, HOLE),
        {"type": "GeometryCollection", "geometries": [polygon(SQUARE, HOLE)]},
        {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]},
        feature({"type": "GeometryCollection", "geometries": [polygon(SQUARE, HOLE)]}),
        collection(feature(polygon([[*c, 5.0] for c in SQUARE], HOLE))),
        collection(feature(polygon(SQUARE[:-1], HOLE))),
    ],
    ids=["collection", "list", "feature", "geometry", "geometries", "multi", "nested", "heights",
         "open ring"],
)  # fmt: skip
def test_every_form_is_the_same_polygon(written, value):
    (one,) = geojson.read(written(value)).features
    assert one.geometry.area == 100 * 50 - 10 * 10
    assert one.geometry.equals(shapely.Polygon(SQUARE, [HOLE]))


def test_a_compressed_file_and_a_mark_of_the_byte_order(tmp_path):
    text = b"\xef\xbb\xbf" + json.dumps(collection(feature(polygon(SQUARE)))).encode()
    (tmp_path / "a.geojson").write_bytes(text)
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(text))
    shapes = [geojson.read(p).features[0].geometry for p in sorted(tmp_path.iterdir())]
    assert shapes[0].equals(shapes[1])


def test_qupath_names_classes_and_colours(golden_path, areas, caplog):
    path = golden_path("annotations_geojson.geojson")
    with caplog.at_level(logging.WARNING):
        regions = geojson.read(path)
    assert regions.in_pixels
    both, stroma = regions.features
    assert (both.name, both.class_name, both.colour) == ("both", "Tumor", (200, 0, 0))
    # −6895466 is QuPath's packed colour of stroma, (150, 200, 150).
    assert (stroma.number, stroma.class_name, stroma.colour) == (4, "Stroma", (150, 200, 150))
    # The geojson package rounds to six decimals.
    found = [f.geometry.area for f in regions.features]
    np.testing.assert_allclose(found, areas["annotations_geojson"], rtol=1e-8)
    assert "1 of type Point, 1 of type LineString" in caplog.text


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, ("Tumor: Positive", (1, 2, 3))),
        ("Tumor", ("Tumor", None)),
        ({"name": None}, ("", None)),
        (None, ("", None)),
        ({"name": 7, "color": [1, 2]}, ("7", None)),
    ],
)
def test_classes_as_other_versions_write_them(written, classification, expected):
    (one,) = geojson.read(written(feature(polygon(SQUARE), classification=classification))).features
    assert (one.class_name, one.colour) == expected


def test_features_inside_of_others_are_read_in_order(written):
    inner = feature(polygon(HOLE), name="inner")
    outer = feature(polygon(SQUARE), name="outer", childObjects=[inner])
    path = written(collection(outer, feature(polygon(HOLE), name="last")))
    assert [f.name for f in geojson.read(path).features] == ["outer", "inner", "last"]


def test_a_polygon_that_crosses_itself_is_mended_and_named(written, caplog):
    bow = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
    (one,) = geojson.read(written(feature(polygon(bow), name="bow"))).features
    assert one.geometry.is_valid
    assert one.geometry.area == 50  # two triangles of 25
    assert "feature 1 ('bow')" in caplog.text


def test_overlapping_parts_of_a_whole_are_parts_of_it(written):
    moved = [[x + 50, y] for x, y in SQUARE]
    value = {"type": "MultiPolygon", "coordinates": [[SQUARE], [moved]]}
    (one,) = geojson.read(written(value)).features
    assert one.geometry.area == 150 * 50


def test_a_property_may_be_the_class(golden_path):
    path = golden_path("annotations_utm.geojson")
    named = geojson.read(path, class_property="landuse")
    assert named.counts == {"wetland": 1, "field": 1}
    assert geojson.read(path).counts == {"": 2}


def test_trident_says_a_crs_of_its_pixels(golden_path, areas):
    regions = geojson.read(golden_path("annotations_trident.geojson"))
    assert regions.in_pixels
    assert not regions.crs
    placed = outlined.in_pixels(regions, outlined.Frame(pathlib.Path("a.svs"), (3000, 4000)))
    assert [f.geometry.area for f in placed.features] == areas["annotations_trident"]


@pytest.mark.parametrize("name", ["annotations_utm", "annotations_degrees"])
@pytest.mark.parametrize("scene", ["made here", "NAIP"])
def test_places_on_the_ground_are_the_pixels_they_were_made_of(
    golden_path, areas, raster, name, scene
):
    if scene == "NAIP" and not NAIP.exists():
        pytest.skip("SSLDIFF_NAIP names no folder with 20090818.tif")
    frame = raster if scene != "NAIP" else outlined.Frame.of(NAIP, (724, 934))
    placed = outlined.in_pixels(geojson.read(golden_path(f"{name}.geojson")), frame)
    found = [f.geometry.area for f in placed.features]
    np.testing.assert_allclose(found, areas[name], rtol=1e-4)
    bounds = [f.geometry.bounds for f in placed.features]
    np.testing.assert_allclose(bounds, areas["annotations_degrees_bounds_px"], atol=0.05)


def test_a_long_edge_in_degrees_is_bent_as_rasterio_bends_it(written, raster):
    """A parallel over the scene: straight in degrees, not on the scene's grid."""
    west, east, south, north = -102.0, -98.0, 47.02, 47.03
    box = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (one,) = outlined.in_pixels(geojson.read(written(feature(polygon(box)))), raster).features
    columns = np.linspace(1, 933, 200)
    lon = np.linspace(west, east, 200_001)
    for latitude, line in ((south, one.geometry), (north, one.geometry)):
        x, y = rasterio.warp.transform("EPSG:4326", "EPSG:26914", lon, np.full_like(lon, latitude))
        row, column = (5209247 - np.array(y)) / 5, (np.array(x) - 485900) / 5
        expected = np.interp(columns, column, row)
        points = shapely.points(columns, expected)
        assert shapely.distance(line.boundary, points).max() < 0.02


def test_pixels_of_a_raster_are_known_by_their_program_or_their_place(written, raster):
    marked = feature(polygon(SQUARE), objectType="annotation")
    far = [[x + 300, y + 300] for x, y in SQUARE]
    for value in (marked, feature(polygon(far))):
        (one,) = outlined.in_pixels(geojson.read(written(value)), raster).features
        assert one.geometry.area == 5000


def test_another_scene_is_left_out_and_may_leave_none(written, raster):
    elsewhere = [[10 + x / 1000, 50 + y / 1000] for x, y in SQUARE]
    value = collection(
        feature(polygon(elsewhere)),
        crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
    )
    assert not outlined.in_pixels(geojson.read(written(value)), raster).features


SWAPPED = [[47.0, -99.15], [47.0, -99.14], [47.01, -99.14], [47.01, -99.15], [47.0, -99.15]]
CRS_OF_FILES = {"type": "name", "properties": {"name": "file:///etc/passwd"}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "expected GeoJSON, got .*a.geojson"),
        ("[" * 100_000, "expected GeoJSON, got"),
        ("1" * 5000, "expected GeoJSON, got"),
        ("null", "expected GeoJSON features in .*a.geojson, got nothing"),
        ('"=cmd()"', "expected GeoJSON features"),
        (collection(), "expected polygons in .*a.geojson, got no features"),
        ({"a": 1}, "expected a GeoJSON feature as number 1 of .*got an object without a type"),
        (collection({"type": "Topology"}), "as number 1 of .*got type 'Topology'"),
        (
            collection(feature({"type": "Point", "coordinates": [1, 2]})),
            r"geometries without an area \(1 of type Point\)",
        ),
        (feature(None), r"geometries without an area \(1 of type nothing\)"),
        (feature(polygon([[0, 0], [1, 1]]), name="thin"),
         r"three corners or more of feature 1 \('thin'\) of .*got 2"),
        (feature(polygon([[0, 0], ["a", 1], [2, 2]])), "corners .* of feature 1"),
        (feature(polygon([[0, 0], [1], [2, 2]])), "corners .* of feature 1"),
        (feature(polygon([[0, 0], [10**400, 1], [2, 2]])), "corners .* of feature 1"),
        (feature({"type": "Polygon", "coordinates": 7}), "coordinates of feature 1 .*got 7"),
        (feature({"type": "Polygon", "coordinates": [7]}), "corners .* of feature 1"),
        (feature({"type": "MultiPolygon", "coordinates": [7]}), "coordinates of feature 1 .*got 7"),
        (feature({"type": "Blob"}), "a geometry of feature 1 .*got type 'Blob'"),
        ('{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": '
         "[[[0, 0], [NaN, 1], [2, 2]]]}}", "finite corners of feature 1"),
        ({"type": "Feature", "properties": [1], "geometry": None}, "properties of feature 1"),
        (collection(feature(polygon(SQUARE)), crs=CRS_OF_FILES), "a crs such as EPSG:32633"),
        (collection(feature(polygon(SQUARE)), crs={"type": "link"}), "a crs such as EPSG:32633"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line_that_names_file_and_feature(written, value, message):
    path = written(value)
    with pytest.raises(SlideError, match=message) as caught:
        geojson.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_damaged_archive_and_a_missing_file(tmp_path):
    whole = gzip.compress(json.dumps(feature(polygon(SQUARE))).encode())
    for name, data in (("cut.geojson.gz", whole[:-12]), ("odd.geojson.gz", whole[:20] + whole)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SlideError, match=f"expected GeoJSON, got .*{name}"):
            geojson.read(tmp_path / name)
    with pytest.raises(SlideError, match="no such file"):
        geojson.read(tmp_path / "none.geojson")


def test_pixels_of_another_slide(written):
    frame = outlined.Frame(pathlib.Path("small.svs"), (60, 1000))
    path = written(collection(feature(polygon(HOLE)), feature(polygon(
        [[x * 20, y] for x, y in SQUARE]), classification={"name": "Tumor"})))  # fmt: skip
    with pytest.raises(SlideError, match=r"pixels of small.svs \(1000 × 60 px\) in .*feature 2 "
                       r"\(class 'Tumor'\) at x 200…2200, y 20…70: is it of another"):  # fmt: skip
        outlined.in_pixels(geojson.read(path), frame)


def test_what_hangs_over_the_border_a_little_is_cut(written):
    frame = outlined.Frame(pathlib.Path("small.svs"), (60, 100))
    (one,) = outlined.in_pixels(geojson.read(written(feature(polygon(SQUARE)))), frame).features
    assert one.geometry.equals(shapely.box(10, 20, 100, 60))


@pytest.mark.parametrize(
    "crs", [None, "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326", "urn:ogc:def:crs:EPSG::4269"]
)
def test_latitude_before_longitude(written, raster, crs):
    """QGIS writes CRS84, other programs a code or nothing: the line is the same."""
    more = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    elsewhere = feature(polygon([[y, x] for x, y in SQUARE]))
    swapped = feature(polygon(SWAPPED), classification={"name": "Field"})
    path = written(collection(elsewhere, swapped, **more))
    with pytest.raises(SlideError) as caught:
        outlined.in_pixels(geojson.read(path), raster)
    assert str(caught.value) == (
        f"expected longitude before latitude in {path}, got them swapped: so feature 2 (class "
        "'Field') lies beyond scene.tif (934 × 724 px)"
    )
    right = feature(polygon([[x, y] for y, x in SWAPPED]))
    assert outlined.in_pixels(geojson.read(written(collection(right, **more))), raster).features


def test_a_crs_for_a_slide_that_lies_nowhere(golden_path):
    frame = outlined.Frame(pathlib.Path("slide.svs"), (60, 1000))
    with pytest.raises(SlideError, match=r"slide.svs .*nowhere on the ground, .*EPSG:26914"):
        outlined.in_pixels(geojson.read(golden_path("annotations_utm.geojson")), frame)


def test_an_unknown_crs(written, raster):
    crs = {"type": "name", "properties": {"name": "EPSG:999999"}}
    path = written(collection(feature(polygon(SQUARE)), crs=crs))
    with pytest.raises(SlideError, match="expected a known crs"):
        outlined.in_pixels(geojson.read(path), raster)


def test_a_feature_is_found_by_its_name_then_by_its_class(written):
    path = written(collection(
        feature(polygon(SQUARE), name="A", classification={"name": "Tumor"}),
        feature(polygon(HOLE), name="B", classification={"name": "A"}),
    ))  # fmt: skip
    regions = geojson.read(path)
    assert [f.number for f in regions.named("A")] == [1]
    assert [f.number for f in regions.named("Tumor")] == [1]
    with pytest.raises(SlideError, match=r"called 'C' in .*got 'A', 'Tumor', 'B'"):
        regions.named("C")


def test_what_is_written_reads_back_and_is_equal_each_time(tmp_path):
    hostile = "=cmd('x')|<script>\n\ud800"
    shapes = [shapely.Polygon(SQUARE, [HOLE]), shapely.Polygon(SQUARE).buffer(3.123456)]
    features = [
        geojson.Feature(1, shapes[0], "Tissue 1", "Tissue", (1, 2, 3)),
        geojson.Feature(2, shapes[1], hostile.replace("\ud800", "?"), ""),
    ]
    geojson.write(tmp_path / "a.geojson", features, about="slide")
    geojson.write(tmp_path / "b.geojson", features, about="slide")
    text = (tmp_path / "a.geojson").read_text()
    assert text == (tmp_path / "b.geojson").read_text()
    values = json.loads(text)
    first = values["features"][0]
    assert first["type"] == "Feature"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first["id"])
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "Tissue 1",
        "classification": {"name": "Tissue", "color": [1, 2, 3]},
    }
    assert first["id"] != values["features"][1]["id"]
    back = geojson.read(tmp_path / "a.geojson")
    assert back.in_pixels
    assert [f.name for f in back.features] == [f.name for f in features]
    for one, shape in zip(back.features, shapes, strict=True):
        assert one.geometry.symmetric_difference(shape).area < 0.2  # three decimals
