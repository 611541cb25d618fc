"""STAC items of images: by the published schemas, other libraries, and outlines of closed form."""

import json

import numpy as np
import pytest
import rasterio

from ssldiff_jax.generation import placed
from ssldiff_jax.slides import ground, placing, pyramid, stac

SIZE = (64, 96)
UTM = placing.Place("EPSG:32633", (), (5e5, 5.2e6)).georeference(SIZE, 5e6)


def item(place=UTM, size=SIZE, **properties):
    return stac.item("scene-seed0", "image.cog.tif", size, place, properties)


def test_an_item_is_valid_by_the_published_schema():
    """The core's, which pystac brings along; those of extensions lie behind addresses."""
    pystac = pytest.importorskip("pystac")
    validation = pytest.importorskip("pystac.validation.stac_validator")
    pytest.importorskip("jsonschema")
    values = item(**{"gsd": 5.0, "license": "CC0-1.0", "ssldiff_jax:seed": 3})
    validator = validation.JsonSchemaSTACValidator()
    validator.validate_core(values, pystac.STACObjectType.ITEM, stac.VERSION)
    wrong = {key: value for key, value in values.items() if key != "assets"}
    with pytest.raises(pystac.errors.STACValidationError):
        validator.validate_core(wrong, pystac.STACObjectType.ITEM, stac.VERSION)


def test_pystac_reads_what_was_written(tmp_path):
    pystac = pytest.importorskip("pystac")
    projection = pytest.importorskip("pystac.extensions.projection")
    path = tmp_path / "image.stac.json"
    path.write_text(json.dumps(item(gsd=5.0)))
    read = pystac.Item.from_file(str(path))
    assert read.id == "scene-seed0"
    assert read.common_metadata.gsd == 5.0
    assert read.common_metadata.created is not None
    asset = read.assets["image"]
    assert asset.media_type == pystac.MediaType.COG
    assert asset.get_absolute_href() == str(tmp_path / "image.cog.tif")
    fields = projection.ProjectionExtension.ext(read)
    assert fields.code == "EPSG:32633"
    assert fields.shape == list(SIZE)
    assert tuple(fields.transform) == UTM.transform
    assert fields.bbox == [5e5, 5.2e6 - 320, 5e5 + 480, 5.2e6]


def test_a_system_without_a_number_is_told_by_wkt():
    text = "+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m"
    place = placing.Place(text, (), (0.0, 0.0)).georeference(SIZE, 5e6)
    properties = item(place)["properties"]
    assert properties["proj:code"] is None
    read = rasterio.crs.CRS.from_wkt(properties["proj:wkt2"])
    assert read.to_dict()["proj"] == "laea"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("EPSG:32633", "EPSG:32633"), ("OGC:CRS84", "OGC:CRS84"), ("EPSG:4807", "EPSG:4807"),
        # Like registered ones, but for the datum, or moved by metres.
        ("+proj=utm +zone=33 +ellps=GRS80", None),
        ("+proj=utm +zone=33 +datum=WGS84 +towgs84=1,2,3", None),
        ("+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80", None),
    ],
)  # fmt: skip
def test_a_code_is_that_of_the_very_system(text, code):
    origin = (5e5, 5.2e6) if "utm" in text or "32633" in text else (15.0, 47.0)
    origin = (4.3e6, 3.2e6) if "laea" in text else origin
    place = placing.Place(text, (), origin).georeference(SIZE, 5e6)
    properties = item(place)["properties"]
    assert properties["proj:code"] == code
    system = rasterio.crs.CRS.from_user_input(properties.get("proj:wkt2", code))
    assert system == rasterio.crs.CRS.from_user_input(text)


MOON = "+proj=eqc +a=1737400 +b=1737400 +units=m +no_defs"


@pytest.mark.parametrize("text", [MOON, "+proj=longlat +a=1737400 +b=1737400 +no_defs"])
def test_what_lies_on_another_body_has_no_item(tmp_path, caplog, text):
    """Its image is there all the same."""
    place = placing.Place(text, (), (10.0, 20.0)).georeference(SIZE, 5e6)
    with pytest.raises(ValueError, match="longitude and latitude on the earth, got ") as refused:
        item(place)
    assert len(str(refused.value).splitlines()) == 1
    (tmp_path / "image.cog.tif").write_bytes(b"image")
    scale = pyramid.Scale(5e6, georeference=place)
    assert placed.write_item(tmp_path, "image", SIZE, scale, placed.Origin("run", 0, "")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["image.cog.tif"]
    assert "image.stac.json is left out: expected a place with longitude" in caplog.text


@pytest.mark.parametrize(
    ("stated", "told"),
    [("CC0-1.0", "CC0-1.0"), ("MIT", "MIT"), ("as the data's owner says", "other")],
)
def test_licences_are_identifiers(stated, told):
    assert stac.licence(stated) == told


@pytest.mark.parametrize(
    ("crs", "origin"),
    [
        ("EPSG:32633", (5e5, 5.2e6)), ("EPSG:32733", (3e5, 7e6)), ("EPSG:3857", (1e6, 6e6)),
        ("EPSG:2225", (6e6, 2e6)), ("EPSG:3031", (1e6, 1e6)), ("EPSG:4326", (15.0, 47.0)),
    ],
)  # fmt: skip
def test_an_outline_is_the_image_s_in_degrees(crs, origin):
    """By pyproj and shapely: every corner, and the area of what its borders enclose."""
    pyproj, geometry = pytest.importorskip("pyproj"), pytest.importorskip("shapely.geometry")
    size = (4000, 6000)
    place = placing.Place(crs, (), origin).georeference(size, 5e6)
    values = item(place, size)
    outline = geometry.shape(values["geometry"])
    assert outline.is_valid
    assert outline.exterior.is_ccw
    assert values["bbox"] == pytest.approx(outline.bounds, abs=1e-8)
    a, _, c, _, e, f = place.transform
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    along = np.linspace(0, 1, 400, endpoint=False)
    x = np.concatenate([along, np.ones(400), 1 - along, np.zeros(400)]) * a * size[1] + c
    y = np.concatenate([np.zeros(400), along, np.ones(400), 1 - along]) * e * size[0] + f
    exact = geometry.Polygon(np.stack(to_degrees.transform(x, y), -1))
    # What 32 points on each border leave of one that is curved.
    assert outline.symmetric_difference(exact).area <= 1e-4 * exact.area


def test_an_outline_over_the_date_line_is_cut_there():
    place = ground.Georeference("EPSG:4326", (0.01, 0, 179.5, 0, -0.01, -16.0))
    values = item(place, (100, 200))
    assert values["bbox"] == [179.5, -17.0, -178.5, -16.0]
    assert values["geometry"]["type"] == "MultiPolygon"
    rings = [np.array(polygon[0]) for polygon in values["geometry"]["coordinates"]]
    spans = sorted((ring[:, 0].min(), ring[:, 0].max()) for ring in rings)
    assert spans == [(-180.0, -178.5), (179.5, 180.0)]
    for ring in rings:
        assert (ring[0] == ring[-1]).all()
        x, y = ring[:-1].T
        assert np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90.0), ("EPSG:3031", -90.0)])
def test_an_outline_around_a_pole_holds_it(crs, pole):
    geometry = pytest.importorskip("shapely.geometry")
    size = (200, 200)
    place = placing.Place(crs, (), (-5e5, 5e5)).georeference(size, 5e9)
    values = item(place, size)
    west, south, east, north = values["bbox"]
    assert (west, east) == (-180.0, 180.0)
    assert pole in (south, north)
    outline = geometry.shape(values["geometry"])
    assert outline.is_valid
    for longitude in (-179, -90, 0, 45, 179):
        assert outline.contains(geometry.Point(longitude, pole * 0.999))
        assert not outline.contains(geometry.Point(longitude, pole * 0.8))


def test_a_raster_of_degrees_around_the_earth_is_one_outline():
    place = ground.Georeference("EPSG:4326", (0.1, 0, -180.0, 0, -0.1, 90.0))
    values = item(place, (1800, 3600))
    assert values["bbox"] == [-180.0, -90.0, 180.0, 90.0]
    assert values["geometry"]["type"] == "Polygon"
