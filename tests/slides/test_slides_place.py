"""Where drawn rasters lie, and how large pixels are on the ground, against closed forms."""

import math

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio import Affine

from ssldiff_jax import slides
from ssldiff_jax.slides import ground, pyramid

SPHERE, WGS84, FLATTENING = 6_371_008.8, 6_378_137.0, 1 / 298.257223563
SURVEY_FOOT, FOOT = 1200 / 3937, 0.3048
UTM = Affine(0.5, 0, 4e5, 0, -0.5, 4.4e6)
ANGLE = math.radians(30)
TURNED = Affine(
    0.5 * math.cos(ANGLE), 0.5 * math.sin(ANGLE), 4e5,
    0.5 * math.sin(ANGLE), -0.5 * math.cos(ANGLE), 4.4e6,
)  # fmt: skip
DEGREES = 1e-5


@pytest.fixture
def raster_at(tmp_path):
    """A function from a coordinate system, a transform and (height, width) to a GeoTIFF there."""

    def write(crs, transform, shape=(60, 40), **options):
        height, width = shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8",
            "crs": crs, "transform": transform, "sparse_ok": True,
        }  # fmt: skip
        with rasterio.open(tmp_path / "scene.tif", "w", **(profile | options)):
            return tmp_path / "scene.tif"

    return write


def mercator(latitude, side=1.0, rows=60):
    """Pixels of a side whose middle row lies at a latitude, in Web Mercator."""
    north = WGS84 * math.asinh(math.tan(math.radians(latitude)))
    return Affine(side, 0, 1e6, 0, -side, north + side * rows / 2)


def corner(transform, row, col):
    """(x, y), by hand."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * col + b * row + c, d * col + e * row + f


PLACES = {
    "metres": ("EPSG:32618", UTM, 0.5e6),
    "turned": ("EPSG:32618", TURNED, 0.5e6),
    "south up": ("EPSG:32618", Affine(0.5, 0, 4e5, 0, 0.5, 4.4e6), 0.5e6),
    "US survey feet": ("EPSG:2225", Affine(1, 0, 6e6, 0, -1, 2e6), SURVEY_FOOT * 1e6),
    "feet": ("EPSG:2222", Affine(2, 0, 7e5, 0, -2, 9e5), 2 * FOOT * 1e6),
    "degrees": (
        "EPSG:4326", Affine(DEGREES, 0, 10, 0, -DEGREES, 30 * DEGREES),
        math.radians(DEGREES) * SPHERE * 1e6,
    ),
    "Web Mercator": (
        "EPSG:3857", mercator(47), math.cos(math.radians(47)) * SPHERE / WGS84 * 1e6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("factor", [0.5, 1, 2, 2.7, 16])
def test_corners_of_what_is_read_lie_on_those_of_its_ground(raster_at, place, factor):
    crs, transform, mpp = PLACES[place]
    path = raster_at(crs, transform)
    slide = slides.open_slide(path)
    assert slide.mpp == pytest.approx(mpp, rel=1e-6)
    height, width = slide.shape_at(factor * mpp)
    where = pyramid.georeference(path, factor * mpp)
    for row, col in [(0, 0), (0, width), (height, 0), (height, width)]:
        np.testing.assert_allclose(
            corner(where.transform, row, col),
            corner(transform, row * factor, col * factor),
            rtol=0, atol=1e-5 * abs(transform.a),
        )  # fmt: skip


@pytest.mark.parametrize("native", [0.4975e6, 0.5e6, 0.504e6])
@pytest.mark.parametrize("wanted", [0.5e6, 2e6])
def test_within_the_tolerance_pixels_are_native_ones(raster_at, native, wanted):
    """0.4975 m is read as 0.5 without resampling: half a per cent, 50 px after 10 000."""
    side = native * 1e-6
    transform = Affine(side, 0, 4e5, 0, -side, 4.4e6)
    path = raster_at("EPSG:32618", transform, (10_001, 3), tiled=True, blockxsize=16, blockysize=16)
    height, _ = slides.open_slide(path).shape_at(wanted)
    where = pyramid.georeference(path, wanted)
    expected = 4.4e6 - height * round(wanted / native) * side
    assert corner(where.transform, height, 0)[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("place", ["metres", "US survey feet", "Web Mercator"])
def test_a_jpeg_2000_has_a_place(raster_at, tmp_path, place):
    crs, transform, mpp = PLACES[place]
    rasterio.shutil.copy(
        raster_at(crs, transform), tmp_path / "scene.jp2", driver="JP2OpenJPEG", reversible=True
    )
    assert slides.open_slide(tmp_path / "scene.jp2").mpp == pytest.approx(mpp, rel=1e-6)
    where = pyramid.georeference(tmp_path / "scene.jp2", 2 * mpp)
    np.testing.assert_allclose(
        corner(where.transform, 30, 20), corner(transform, 60, 40), rtol=0, atol=1e-5
    )


def test_one_pixel_has_a_place(raster_at):
    where = pyramid.georeference(raster_at("EPSG:32618", UTM, (1, 1)), 1e6)
    assert where.transform == (1, 0, 4e5, 0, -1, 4.4e6)


def test_the_scale_that_was_read_decides_the_place(raster_at):
    """By a user's own microns per pixel a file is read in other pixels, on the same ground."""
    path = raster_at("EPSG:32618", UTM)
    slide = slides.open_slide(path, mpp=1e6)
    where = pyramid.georeference(path, 2e6, native_mpp=slide.mpp)
    assert slide.shape_at(2e6) == (30, 20)
    assert corner(where.transform, 30, 20) == corner(UTM, 60, 40)


@pytest.mark.parametrize("options", [{"crs": None}, {"transform": Affine.identity()}])
def test_a_raster_without_a_place_lies_nowhere(raster_at, options):
    crs, transform = options.get("crs", "EPSG:32618"), options.get("transform", UTM)
    assert pyramid.georeference(raster_at(crs, transform), 1e6) is None


@pytest.mark.parametrize("place", PLACES)
def test_a_cog_lies_where_it_is_told(raster_at, tmp_path, place):
    crs, transform, mpp = PLACES[place]
    where = pyramid.georeference(raster_at(crs, transform), mpp).moved(-3, 5).scaled(2, 0.5)
    pixels = np.zeros((7, 9, 3), np.uint8)
    pyramid.write_cog(tmp_path / "out.cog.tif", pixels, pyramid.Scale(mpp, 90, where))
    with rasterio.open(tmp_path / "out.cog.tif") as file:
        assert file.crs == rasterio.crs.CRS.from_string(crs)
        for row, col in [(0, 0), (7, 9)]:
            np.testing.assert_allclose(
                corner(file.transform, row, col),
                corner(transform, 2 * row - 3, col / 2 + 5),
                rtol=0, atol=1e-6 * abs(transform.a),
            )  # fmt: skip


@pytest.mark.parametrize("latitude", [-75, -47, 0, 30, 47, 60, 80])
def test_web_mercator_is_as_large_as_its_ground(raster_at, latitude):
    """Its metre is one of the equator; on a sphere it is as many as the cosine of the latitude."""
    size = slides.open_slide(raster_at("EPSG:3857", mercator(latitude, 2.0))).mpp
    expected = 2e6 * math.cos(math.radians(latitude))
    assert size == pytest.approx(expected * (SPHERE / WGS84 if latitude else 1), rel=1e-6)


def test_the_mercator_of_an_ellipsoid_is_as_large_as_its_ground(raster_at):
    """Snyder 1987, 7-7: y = a·(atanh(sin φ) − e·atanh(e·sin φ)); sides on a sphere follow from it
    by dy/dφ = a·(1 − e²)/((1 − e² sin² φ)·cos φ)."""
    sine, cosine = math.sin(math.radians(60)), math.cos(math.radians(60))
    e2 = FLATTENING * (2 - FLATTENING)
    e = math.sqrt(e2)
    north = WGS84 * (math.atanh(sine) - e * math.atanh(e * sine))
    size = slides.open_slide(raster_at("EPSG:3395", Affine(2, 0, 1e6, 0, -2, north + 60))).mpp
    across = SPHERE * cosine / WGS84
    down = SPHERE * (1 - e2 * sine**2) * cosine / (WGS84 * (1 - e2))
    assert size == pytest.approx((across + down) * 1e6, rel=1e-6)
    assert size == pytest.approx(1e6, rel=ground._SQUARE)


@pytest.mark.parametrize(
    ("crs", "east", "north"),
    [
        ("EPSG:32618", 166_000, 10), ("EPSG:32661", 2e6 - 20, 2e6 + 30), ("EPSG:3857", 1e6, 5e5),
        ("EPSG:27700", 4e5, 8e5), ("EPSG:2154", 7e5, 6.6e6), ("EPSG:3035", 2.7e6, 1.8e6),
        ("EPSG:5070", 1.4e6, 4e5),
    ],
)  # fmt: skip
def test_a_metre_of_a_map_that_is_true_is_a_metre(raster_at, crs, east, north):
    """Zone, pole, equator, national grids, and maps of equal area far from their middle."""
    assert slides.open_slide(raster_at(crs, Affine(1, 0, east, 0, -1, north))).mpp == 1e6


@pytest.mark.parametrize(
    ("crs", "transform", "shape", "message"),
    [
        ("EPSG:32618", Affine(0.5, 0, 4e5, 0, -1, 4.4e6), (60, 40), "square pixels, got 1 × 0.5 m"),
        ("EPSG:32618", Affine(1, 0.5, 4e5, 0.5, 1, 4.4e6), (60, 40), "m at 36.9° to each other"),
        ("EPSG:32618", Affine(0, 0, 4e5, 0, 0, 4.4e6), (60, 40), "square pixels, got 0 × 0 m"),
        ("EPSG:4087", Affine(1, 0, 0, 0, -1, 6.68e6), (60, 40), "square pixels"),
        ("EPSG:3857", Affine(1, 0, 1e6, 0, -1.04, 8e6), (60, 40), "square pixels"),
        ("EPSG:3857", mercator(60, 2000, 600), (600, 40), "one size on the ground, within 5%"),
        ("EPSG:4326", Affine(0.02, 0, 5, 0, -0.01, 65), (1000, 40), "one size on the ground"),
        ("EPSG:32618", Affine(1, 0, 4e8, 0, -1, 4.4e9), (60, 40), "on the ground, got one beyond"),
        # North before east, of 41° S and 175° E; metres that are called degrees.
        ("EPSG:4326", Affine(1e-5, 0, -41, 0, -1e-5, 175), (60, 40), "one beyond the bounds"),
        ("EPSG:4326", Affine(0.1, 0, 4e5, 0, -0.1, 3_600_010), (60, 40), "one beyond the bounds"),
        ("EPSG:4326", Affine(1e-5, 0, 4e5, 0, -1e-5, 3e-4), (60, 40), "one beyond the bounds"),
        ("EPSG:4807", Affine(1e-5, 0, 10, 0, -1e-5, 399), (60, 40), "one beyond the bounds"),  # gon
    ],
)  # fmt: skip
def test_what_has_no_one_size_on_the_ground_is_refused(raster_at, crs, transform, shape, message):
    path = raster_at(crs, transform, shape)
    for options in ({}, {"otherwise_mpp": 1e6}):
        with pytest.raises(slides.SlideError, match=rf"{message}.* in .*scene\.tif: pass --config"):
            slides.open_slide(path, **options)
    assert slides.open_slide(path, mpp=3e6).mpp == 3e6


def test_squares_on_the_ground_may_be_none_of_the_map(raster_at):
    """Equidistant cylindrical at 60° N: half as wide on the ground as on the map."""
    north = math.radians(60) * WGS84
    path = raster_at("EPSG:4087", Affine(2, 0, 0, 0, -1, north + 30))
    assert slides.open_slide(path).mpp == pytest.approx(1e6, rel=0.01)


@pytest.mark.parametrize(
    ("crs", "side"),
    [
        ("+proj=longlat +a=3396190 +b=3396190 +no_defs", math.degrees(1 / 3_396_190)),
        ("+proj=eqc +a=3396190 +b=3396190 +no_defs", 1.0),
        ("+proj=merc +a=1737400 +b=1737400 +no_defs", 1.0),
    ],
)
def test_a_degree_is_as_long_as_its_body_is_large(raster_at, crs, side):
    """Mars and the moon; the earth's ratio of mean to equatorial radius is taken for all."""
    path = raster_at(crs, Affine(side, 0, 0, 0, -side, 30 * side))
    assert slides.open_slide(path).mpp == pytest.approx(1e6, rel=2e-3)


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32618+5773", Affine(1, 0, 4e5, 0, -1, 4.4e6), 1),  # with heights
        ("EPSG:2193", Affine(1, 0, 1.75e6, 0, -1, 5.4e6), 1),  # north before east
        ("EPSG:2053", Affine(-1, 0, 1e4, 0, -1, 2.9e6), 1),  # to the west and south
        ("+proj=utm +zone=18 +datum=WGS84 +units=km", Affine(1e-3, 0, 400, 0, -1e-3, 4400), 1),
    ],
)
def test_axes_and_units_of_any_kind_are_understood(raster_at, crs, transform, metres):
    assert slides.open_slide(raster_at(crs, transform)).mpp == pytest.approx(metres * 1e6)


@pytest.mark.parametrize("west", [-180.0002, 179.9998, 359.9998])
def test_degrees_may_begin_at_any_meridian(raster_at, west):
    path = raster_at("EPSG:4326", Affine(1e-5, 0, west, 0, -1e-5, 3e-4))
    assert slides.open_slide(path).mpp == pytest.approx(math.radians(1e-5) * SPHERE * 1e6)


def test_a_raster_may_cross_the_last_meridian(raster_at):
    path = raster_at("EPSG:3857", Affine(2, 0, math.pi * WGS84 - 40, 0, -2, 8_399_737.9))
    assert slides.open_slide(path).mpp == pytest.approx(1e6, rel=0.01)
