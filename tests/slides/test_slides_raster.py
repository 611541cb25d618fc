import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
import rasterio
import small_configs
from rasterio.enums import ColorInterp, Resampling

from ssldiff_jax import slides
from ssldiff_jax.slides import backends, raster, reading

UTM = "EPSG:32614"
SQUARE = rasterio.Affine(0.6, 0, 485_000, 0, -0.6, 5_209_000)


@pytest.fixture
def scene(tmp_path):
    """A function from values (H, W, C) and options of the file to a GeoTIFF of them."""

    def write(values, name="scene.tif", *, mask=None, overviews=(), **options):
        height, width, count = values.shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": count,
            "dtype": values.dtype, "crs": UTM, "transform": SQUARE,
        }  # fmt: skip
        path = tmp_path / name
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **(profile | options)) as file,
        ):
            file.write(np.moveaxis(values, -1, 0))
            if mask is not None:
                file.write_mask(mask)
            if overviews:
                file.build_overviews(list(overviews), Resampling.average)
        return path

    return write


def noise(height, width, count=3, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, count), dtype, endpoint=True)


def image_of(path, **options):
    slide = slides.open_slide(path, **options)
    try:
        return slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    finally:
        slide.close()


def test_windows_are_slices(scene):
    values = noise(200, 310)
    slide = slides.open_slide(scene(values, tiled=True, blockxsize=64, blockysize=64))
    assert isinstance(slide._backend, raster.RasterBackend)
    assert isinstance(slide._backend, backends.Backend)
    assert slide.shape == (200, 310)
    for top, left, height, width in [(0, 0, 200, 310), (63, 65, 70, 101), (199, 309, 1, 1)]:
        np.testing.assert_array_equal(
            slide.read_region(top, left, height, width, mpp=slide.mpp),
            values[top : top + height, left : left + width],
        )


def test_bounded_strips_equal_one_read(scene, monkeypatch):
    values = noise(70, 90)
    monkeypatch.setattr(raster, "_STRIP_VALUES", 3000)
    np.testing.assert_array_equal(image_of(scene(values)), values)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1001, 1003), (437, 500), (1000, 771)])
def test_overviews_of_odd_sizes_show_the_same_ground(scene, shape, factor):
    """501 px stand for 1001: what is read lies where it lies without overviews, to a twentieth of
    a pixel, by the slopes of a ramp along both axes."""
    ramp = np.add.outer(np.arange(shape[0]), np.zeros(shape[1]))
    across = np.add.outer(np.zeros(shape[0]), np.arange(shape[1]))
    # Waves, so that 8 bits resolve a fraction of a pixel: 40 levels a pixel at most.
    waves = [127 + 120 * np.sin(axis * 2 * np.pi / 97) for axis in (ramp, across)]
    values = np.stack([*waves, waves[0]], axis=-1).round().astype(np.uint8)
    images = []
    for name, overviews in (("with.tif", (2, 4, 8)), ("without.tif", ())):
        slide = slides.open_slide(scene(values, name, overviews=overviews))
        height, width = slide.shape_at(slide.mpp * factor)
        images.append(slide.read_region(0, 0, height, width, mpp=slide.mpp * factor))
    found, expected = (image.astype(float) for image in images)
    for axis, band in ((0, 0), (1, 1)):
        slope = np.gradient(expected[..., band], axis=axis)
        off = (found - expected)[..., band]
        # By parts, because a drift grows from one end to the other.
        for part, of in zip(
            np.array_split(off, 5, axis=axis), np.array_split(slope, 5, axis=axis), strict=True
        ):
            assert abs((part * of).sum() / (of**2).sum()) < 0.05


def test_overviews_are_levels(scene):
    path = scene(noise(1032, 776), overviews=(2, 4, 8), tiled=True, blockxsize=256, blockysize=256)
    slide = slides.open_slide(path)
    assert slide._backend.level_shapes == ((1032, 776), (516, 388), (258, 194), (129, 97))
    for number in range(3):
        with rasterio.open(path, overview_level=number) as file:
            expected = np.moveaxis(file.read(), 0, -1)
        height, width = slide.shape_at(slide.mpp * 2 ** (number + 1))
        found = slide.read_region(0, 0, height, width, mpp=slide.mpp * 2 ** (number + 1))
        np.testing.assert_array_equal(found, expected[:height, :width])
        tail = slide.read_region(height - 9, width - 7, 9, 7, mpp=slide.mpp * 2 ** (number + 1))
        np.testing.assert_array_equal(tail, expected[height - 9 : height, width - 7 : width])


def test_levels_are_opened_when_they_are_read(scene, monkeypatch):
    path, opened, original = scene(noise(600, 600), overviews=(2, 4)), [], raster._open

    def remember(path, overview=None):
        opened.append((overview, original(path, overview)))
        return opened[-1][1]

    monkeypatch.setattr(raster, "_open", remember)
    slide = slides.open_slide(path)
    assert [number for number, file in opened if not file.closed] == [None, 1]  # probed: the last
    slide.read_region(0, 0, 8, 8, mpp=slide.mpp * 2)
    assert [number for number, file in opened if not file.closed] == [None, 1, 0]
    slide.close()
    assert all(file.closed for _, file in opened)


def test_a_closed_raster_stays_closed(scene):
    slide = slides.open_slide(scene(noise(600, 600), overviews=(2, 4)))
    slide.close()
    for mpp in (slide.mpp, slide.mpp * 2):
        with pytest.raises(slides.SlideError, match=r"scene\.tif: .*closed"):
            slide.read_region(0, 0, 8, 8, mpp=mpp)


def test_a_raster_larger_than_memory_is_read_by_windows(tmp_path):
    """27 GB, of zeros that no disk holds; a window of it takes what it takes."""
    profile = {
        "driver": "GTiff", "height": 95_000, "width": 95_000, "count": 3, "dtype": "uint8",
        "crs": UTM, "transform": SQUARE, "sparse_ok": True, "tiled": True, "bigtiff": "yes",
        "blockxsize": 512, "blockysize": 512,
    }  # fmt: skip
    with rasterio.open(tmp_path / "large.tif", "w", **profile) as file:
        file.write(np.full((3, 512, 512), 7, np.uint8), window=((51200, 51712), (40960, 41472)))
    tracemalloc.start()
    slide = slides.open_slide(tmp_path / "large.tif")
    found = slide.read_region(51200 - 512, 40960, 1024, 512, mpp=slide.mpp)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[:512].max() == 0
    assert (found[512:] == 7).all()
    assert peak < 20e6


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.uint32])
def test_values_are_scaled_between_low_and_high(scene, dtype):
    row = np.array([0, 99, 100, 102, 200, 355, 609, 610, 611, 30_000])
    path = scene(row[None, :, None].astype(dtype))
    found = image_of(path, reading=small_configs.section("data.reading", low=100, high=610))
    expected = [0, 0, 0, 1, 50, 128, 255, 255, 255, 255]  # half of 510 is 255; 127.5 rounds up
    assert found[0].tolist() == [[value] * 3 for value in expected]


def test_eight_bits_are_stretched_only_when_asked(scene):
    values = noise(20, 30)
    path = scene(values)
    np.testing.assert_array_equal(image_of(path), values)
    found = image_of(path, reading=small_configs.section("data.reading", low=0, high=51))
    np.testing.assert_array_equal(found, np.minimum(values.astype(int) * 5, 255))


def test_bands_are_chosen(scene):
    values = noise(20, 30, 5)
    path = scene(values)
    np.testing.assert_array_equal(image_of(path), values[..., :3])
    for bands in [(4, 1, 2), (5,), (2, 2, 1)]:
        found = image_of(path, reading=small_configs.section("data.reading", bands=bands))
        expected = values[..., [band - 1 for band in bands]]
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
    with pytest.raises(slides.SlideError, match=r"bands in 1…5 for .*scene\.tif, got \(6, 1, 2\)"):
        image_of(path, reading=small_configs.section("data.reading", bands=(6, 1, 2)))


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_bands_are_gray(scene, count):
    values = noise(20, 30, count)
    np.testing.assert_array_equal(image_of(scene(values)), np.repeat(values[..., :1], 3, axis=-1))


@pytest.mark.parametrize("overviews", [(), (2,)])
def test_the_fourth_band_is_infrared_even_where_it_is_called_alpha(scene, overviews):
    values = noise(300, 300, 4)
    path = scene(values, photometric="RGB", alpha="YES", overviews=overviews)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] is ColorInterp.alpha
    np.testing.assert_array_equal(image_of(path), values[..., :3])


def test_nodata_in_all_bands_is_white(scene):
    values = noise(20, 30).clip(1)
    values[2:5], values[7, 8, :2] = 0, 0
    expected = values.copy()
    expected[2:5] = 255
    np.testing.assert_array_equal(image_of(scene(values, nodata=0)), expected)
    chosen = image_of(
        scene(values, nodata=0), reading=small_configs.section("data.reading", bands=(2,))
    )
    assert (chosen[7, 8] == 255).all()


def test_a_mask_of_the_dataset_is_white_at_every_level(scene):
    values, mask = noise(300, 400).clip(0, 200), np.full((300, 400), 255, np.uint8)
    mask[100:160, 40:80] = 0
    slide = slides.open_slide(scene(values, mask=mask, overviews=(2,)))
    expected = np.where(mask[..., None] == 0, 255, values)
    np.testing.assert_array_equal(slide.read_region(0, 0, 300, 400, mpp=slide.mpp), expected)
    small = slide.read_region(0, 0, 150, 200, mpp=2 * slide.mpp)
    np.testing.assert_array_equal((small == 255).all(axis=-1), mask[::2, ::2] == 0)


@pytest.mark.parametrize("nodata", [None, math.nan, -9999.0])
def test_not_a_number_is_no_data(scene, nodata):
    values = np.full((6, 6, 3), 0.5, np.float32)
    values[0, 0], values[1, 1, 2] = math.nan, math.nan
    values[2, 2], values[3, 3], values[4, 4] = -math.inf, math.inf, -9999
    found = image_of(
        scene(values, nodata=nodata), reading=small_configs.section("data.reading", low=0, high=1)
    )
    assert found[range(6), range(6), 0].tolist() == [255, 255, 0, 255, 255 * (nodata == -9999), 128]


def test_no_data_anywhere_is_a_white_slide(scene):
    assert (image_of(scene(np.zeros((40, 50, 3), np.uint8), nodata=0)) == 255).all()
    path = scene(np.full((40, 50, 1), math.nan, np.float32), "float.tif")
    with pytest.raises(slides.SlideError, match=r"got float32 with no data in .*float\.tif"):
        image_of(path)
    assert (image_of(path, reading=small_configs.section("data.reading", high=1.0)) == 255).all()


def test_deep_bands_ask_for_their_range(scene):
    values = np.full((30, 40, 1), 500, np.uint16)
    values[3, 5], values[20, 30], values[0, 0] = 12, 40_000, 0
    path = scene(values, nodata=0)
    with pytest.raises(slides.SlideError) as caught:
        image_of(path)
    message = str(caught.value)
    assert "got uint16 with values 12…40000 in" in message
    assert str(path) in message
    assert "--config.data.reading.low and --config.data.reading.high" in message
    assert "\n" not in message


def test_a_deep_raster_is_not_read_whole_to_tell_its_range(scene, monkeypatch):
    values = np.full((100, 100, 1), 7, np.uint16)
    values[50, 50], values[0, 0] = 9, 1
    monkeypatch.setattr(raster, "_LOOK_SIDE", 20)
    with pytest.raises(slides.SlideError, match="values 7…9 in"):
        image_of(scene(values))


def test_complex_numbers_are_refused(scene):
    path = scene(np.zeros((4, 4, 1), np.complex64))
    with pytest.raises(slides.SlideError, match=r"real numbers, got complex64 in .*scene\.tif"):
        image_of(path, reading=small_configs.section("data.reading", high=1.0))


SURVEY_FOOT = 1200 / 3937
SPHERE = 6_371_008.8 * math.pi / 180  # m a degree


@pytest.mark.parametrize(
    ("crs", "width", "height", "metres"),
    [
        (UTM, 0.6, 0.6, 0.6),
        (UTM, 0.6, 0.605, 0.6025),
        ("EPSG:2225", 2, 2, 2 * SURVEY_FOOT),
        ("EPSG:4326", 1e-5, 1e-5, SPHERE * 1e-5),
        ("EPSG:4326", 2e-5, 1e-5, SPHERE * 1e-5),
    ],
)
def test_mpp_is_told_by_the_coordinate_system(scene, crs, width, height, metres):
    """The degrees: at the equator, and at 60°, where they are half as wide."""
    middle = 0 if width == height else 60
    top = middle + 20 * height if crs == "EPSG:4326" else 5_209_000
    path = scene(noise(40, 30), crs=crs, transform=rasterio.Affine(width, 0, 100, 0, -height, top))
    assert slides.open_slide(path).mpp == pytest.approx(metres * 1e6, rel=1e-9)
    assert slides.open_slide(path, mpp=1e6).mpp == 1e6
    assert slides.open_slide(path, otherwise_mpp=1.0).mpp != 1.0


def test_a_turned_raster_has_the_same_mpp(scene):
    a, b = 0.6 * math.cos(0.5), 0.6 * math.sin(0.5)
    path = scene(noise(40, 30), transform=rasterio.Affine(a, b, 9, b, -a, 9))
    assert slides.open_slide(path).mpp == pytest.approx(0.6e6)


@pytest.mark.parametrize(
    ("crs", "width", "height", "found"),
    [(UTM, 0.6, 0.61, "0.61 × 0.6 m"), ("EPSG:4326", 1e-5, 1e-5, r"1\.1119\d × 0\.5559\d+ m")],
)
def test_pixels_that_are_not_square_have_no_mpp_of_their_own(scene, crs, width, height, found):
    path = scene(noise(40, 30), crs=crs, transform=rasterio.Affine(width, 0, 9, 0, -height, 60))
    with pytest.raises(slides.SlideError, match=rf"square pixels, got {found} in .*scene\.tif"):
        slides.open_slide(path)
    assert slides.open_slide(path, mpp=2e6).mpp == 2e6
    with pytest.raises(slides.SlideError, match="square pixels"):
        slides.open_slide(path, otherwise_mpp=3e6)


def test_a_raster_that_lies_nowhere_asks_for_its_mpp(scene):
    path = scene(noise(40, 30), transform=None)
    with pytest.raises(
        slides.SlideError, match=r"got no coordinate system .*--config\.data\.metres"
    ):
        slides.open_slide(path)


@pytest.mark.parametrize("bigtiff", ["yes", "no"])
@pytest.mark.parametrize("endianness", ["little", "big"])
def test_geo_keys_are_found_in_every_tiff(scene, bigtiff, endianness):
    values = noise(8, 8)
    path = scene(values, bigtiff=bigtiff, endianness=endianness)
    assert raster.is_geotiff(path)
    np.testing.assert_array_equal(image_of(path), values)
    plain = scene(values, "plain.tif", bigtiff=bigtiff, crs=None, transform=None)
    assert not raster.is_geotiff(plain)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_rasters_are_found_on_opening(scene, part):
    path = scene(noise(600, 600), overviews=(2, 4), tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    # Nine tenths hold all of level 0: what is lost is an overview.
    with pytest.raises(slides.SlideError, match=r"scene\.tif: ") as caught:
        slides.open_slide(path)
    assert "\n" not in str(caught.value)


def test_damage_between_what_is_probed_is_found_while_reading(scene):
    path = scene(noise(600, 600), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 20_000] = bytes(20_000)
    path.write_bytes(content)
    slide = slides.open_slide(path)
    with pytest.raises(slides.SlideError, match=r"scene\.tif: ") as caught:
        slide.read_region(0, 0, 600, 600, mpp=slide.mpp)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": (1, 2)}, r"bands must be none, one or three .*got bands=\(1, 2\)"),
        ({"bands": (0, 1, 2)}, r"numbers from 1 up, got bands=\(0, 1, 2\)"),
        ({"low": 5.0}, r"low must lie below high, got low=5.0, high=0.0"),
        ({"low": 3.0, "high": 3.0}, r"low must lie below high"),
        ({"high": math.inf}, r"must be finite, got low=0.0, high=inf"),
        ({"colour": "lab"}, r"colour must be stored or srgb, got colour='lab'"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(reading.AS_STORED, **change)
