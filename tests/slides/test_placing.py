"""Where images lie that no reference places: read back by rasterio, measured by pyproj."""

import math

import numpy as np
import openslide
import pytest
import rasterio
import tifffile

from ssldiff_jax import slides
from ssldiff_jax.slides import placing, pyramid

SIZE = (64, 96)
ROTATED = "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +datum=WGS84"
FOOT = 1200 / 3937  # m, of the US survey
# Borders that are 96 × 64 px of 5 m, by the coordinate system's own unit, or on a sphere.
DEGREE = math.pi / 180 * 6_371_008.8
LATITUDE = 47.0
BOUNDS = {
    "UTM north": ("EPSG:32633", (500_000.0, 5_200_000.0, 500_480.0, 5_200_320.0)),
    "UTM south": ("EPSG:32733", (300_000.0, 7_000_000.0, 300_480.0, 7_000_320.0)),
    "Web Mercator": ("EPSG:3857", (0.0, -160.0, 480.0, 160.0)),
    "degrees": (
        "EPSG:4326",
        (15.0, LATITUDE - 160 / DEGREE,
         15 + 480 / DEGREE / math.cos(math.radians(LATITUDE)), LATITUDE + 160 / DEGREE),
    ),
    "polar, true at 71° S": ("EPSG:3031", (-240.0, -2_082_760.0, 240.0, -2_082_440.0)),
    "feet": ("EPSG:2225", (6e6, 2e6, 6e6 + 480 / FOOT, 2e6 + 320 / FOOT)),
}  # fmt: skip


@pytest.fixture
def image_uint8():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("ending", ["cog.tif", "tif"])
def test_bounds_are_read_back(tmp_path, image_uint8, name, ending):
    crs, bounds = BOUNDS[name]
    place = placing.Place(crs, bounds, ()).georeference(SIZE, 5e6)
    path = tmp_path / f"image.{ending}"
    pyramid.FORMATS[ending](path, image_uint8, pyramid.Scale(5e6, georeference=place))
    west, south, east, north = bounds
    with rasterio.open(path) as file:
        assert file.crs == rasterio.crs.CRS.from_user_input(crs)
        across, down = (east - west) / SIZE[1], (north - south) / SIZE[0]
        assert tuple(file.transform)[:6] == (across, 0, west, 0, -down, north)
        np.testing.assert_allclose(file.bounds, bounds, rtol=0, atol=1e-9 * max(map(abs, bounds)))
        assert (file.height, file.width, file.count) == (*SIZE, 3)
    # As a slide of the next run it has the scale that it was made at.
    slide = slides.open_slide(path)
    assert slide.mpp == pytest.approx(5e6, rel=0.01)
    slide.close()


@pytest.mark.parametrize(
    ("crs", "origin"),
    [
        ("EPSG:32633", (5e5, 5.2e6)), ("EPSG:32733", (3e5, 7e6)), ("EPSG:3857", (1e6, 6e6)),
        ("EPSG:4326", (15.0, 47.0)), ("EPSG:4326", (-70.0, -33.0)), ("EPSG:3413", (-3e5, -4e5)),
        ("EPSG:3031", (1e6, 1e6)), ("EPSG:2225", (6e6, 2e6)),
        ("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m", (0.0, 0.0)),
    ],
)  # fmt: skip
def test_pixels_from_a_corner_are_as_large_on_the_ellipsoid_as_models_have_them(crs, origin):
    """By pyproj's geodesics: 0.6 % for the sphere in its place, 1 % for a map's own metre."""
    pyproj = pytest.importorskip("pyproj")
    place = placing.Place(crs, (), origin).georeference(SIZE, 5e6)
    a, b, c, d, e, f = place.transform
    assert (c, f) == origin
    assert (b, d) == (0, 0)
    assert a > 0 > e
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = c + a * SIZE[1] / 2, f + e * SIZE[0] / 2
    geod = pyproj.Geod(ellps="WGS84")
    for ends in (((x - a, y), (x + a, y)), ((x, y - e), (x, y + e))):
        (lon0, lat0), (lon1, lat1) = (to_degrees.transform(*end) for end in ends)
        *_, metres = geod.inv(lon0, lat0, lon1, lat1)
        assert metres / 2 == pytest.approx(5, rel=0.0125)


def test_a_map_s_own_metre_counts_where_it_is_true():
    for crs, origin, unit in (
        ("EPSG:32633", (5e5, 5.2e6), 1), ("EPSG:2225", (6e6, 2e6), FOOT)
    ):  # fmt: skip
        place = placing.Place(crs, (), origin).georeference(SIZE, 5e6)
        assert place.transform[0] == pytest.approx(5 / unit, rel=1e-12)
        assert place.transform[4] == pytest.approx(-5 / unit, rel=1e-12)


def test_wkt_and_proj_are_as_good_as_a_number():
    bounds = BOUNDS["UTM north"][1]
    expected = rasterio.crs.CRS.from_epsg(32633)
    for text in ("EPSG:32633", "epsg:32633", expected.to_wkt(), "+proj=utm +zone=33 +datum=WGS84"):
        place = placing.Place(text, bounds, ()).georeference(SIZE, 5e6)
        assert rasterio.crs.CRS.from_wkt(place.crs) == expected, text


@pytest.mark.parametrize(
    ("stretch", "is_refused"), [(1.009, False), (0.991, False), (1.011, True), (0.989, True)]
)
@pytest.mark.parametrize("name", ["UTM north", "degrees", "feet"])
def test_bounds_that_give_other_pixels_are_refused_with_both_numbers(name, stretch, is_refused):
    crs, (west, south, east, north) = BOUNDS[name]
    place = placing.Place(crs, (west, south, west + (east - west) * stretch, north), ())
    if not is_refused:
        place.georeference(SIZE, 5e6)
        return
    width = round(96 * stretch)
    with pytest.raises(ValueError, match=r"bounds must give pixels of the models' 5 m") as caught:
        place.georeference(SIZE, 5e6)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert f"got {5 * stretch:g}"[:9] in message
    assert f"for 96 × 64 px; of these bounds size=(64, {width}) would fit" in message


@pytest.mark.parametrize(
    ("crs", "bounds", "origin", "message"),
    [
        ("EPSG:32633", (), (), "crs must come with either bounds"),
        ("", (0, 0, 1, 1), (), "crs must come with either bounds"),
        ("EPSG:32633", (0, 0, 1, 1), (0, 0), "crs must come with either bounds"),
        ("EPSG:32633", (0, 0, 1), (), "bounds must be 4 numbers"),
        ("EPSG:32633", (0, 0, 1, math.nan), (), "bounds must be 4 numbers"),
        ("EPSG:32633", (), (0, 0, 0), "origin must be 2 numbers"),
        ("EPSG:32633", (5, 0, 4, 1), (), "west < east and south < north"),
        ("EPSG:32633", (0, 5, 1, 5), (), "west < east and south < north"),
        ("EPSG:999999", (), (0, 0), "crs must be EPSG:<number>, WKT or a PROJ string, got 'EPSG:9"),
        ("the moon", (), (0, 0), "crs must be EPSG:<number>, WKT or a PROJ string, got 'the moon'"),
        ("EPSG:4978", (), (0, 0), "crs must be projected or geographic, got 'EPSG:4978'"),
        ("EPSG:2053", (), (0, 0), "crs must count eastwards and northwards, got 'EPSG:2053'"),
        (ROTATED, (), (1, 2), "crs must be one that a GeoTIFF can hold, got '+proj=ob_tran"),
    ],
)
def test_what_is_no_place_is_refused_in_one_line(crs, bounds, origin, message):
    with pytest.raises(ValueError, match="must") as caught:
        placing.Place(crs, bounds, origin)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        # Latitude before longitude.
        ("EPSG:4326", (47.0, 105.0, 47.0043, 105.006)),
        # Degrees that are called metres of a zone, and the other way round.
        ("EPSG:4326", (500_000.0, 5_200_000.0, 500_480.0, 5_200_320.0)),
        ("EPSG:32633", (15.0, 47.0, 15.006, 47.004)),
    ],
)
def test_numbers_of_another_system_are_refused(crs, bounds):
    with pytest.raises(ValueError, match=r"x \(or longitude\) before y|bounds must give pixels"):
        placing.Place(crs, bounds, ()).georeference(SIZE, 5e6)


def test_a_place_changes_no_pixel_and_no_level(tmp_path):
    """Of a pyramid that OpenSlide reads, with the tags of a GeoTIFF added to it."""
    image_uint8 = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    place = placing.Place("EPSG:32633", (), (5e5, 5.2e6)).georeference((600, 800), 0.5)
    with_place, without = tmp_path / "with.tif", tmp_path / "without.tif"
    pyramid.write_pyramid(with_place, image_uint8, pyramid.Scale(0.5, georeference=place))
    pyramid.write_pyramid(without, image_uint8, pyramid.Scale(0.5))
    with openslide.OpenSlide(str(with_place)) as one, openslide.OpenSlide(str(without)) as other:
        assert one.level_dimensions == other.level_dimensions
        assert one.properties["openslide.mpp-x"] == other.properties["openslide.mpp-x"]
        for level, size in enumerate(one.level_dimensions):
            pair = (np.asarray(s.read_region((0, 0), level, size)) for s in (one, other))
            np.testing.assert_array_equal(*pair)
    with tifffile.TiffFile(with_place) as file:
        assert file.is_bigtiff
        assert [page.is_tiled for page in file.pages] == [True] * len(file.pages)


def test_a_placed_cog_is_valid(tmp_path):
    """By rio-cogeo, which knows the order of parts that readers of ranges rely on."""
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    image_uint8 = np.random.default_rng(0).integers(0, 256, (1100, 1300, 3), np.uint8)
    place = placing.Place("EPSG:32633", (), (5e5, 5.2e6)).georeference((1100, 1300), 5e6)
    pyramid.write_cog(tmp_path / "it.cog.tif", image_uint8, pyramid.Scale(5e6, georeference=place))
    is_valid, errors, warnings = cogeo.cog_validate(tmp_path / "it.cog.tif", strict=True)
    assert (is_valid, errors, warnings) == (True, [], [])
