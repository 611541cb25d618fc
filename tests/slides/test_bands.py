import numpy as np
import pytest
import rasterio
import small_configs

from ssldiff_jax.slides import bands
from ssldiff_jax.slides.backends import SlideError


@pytest.fixture
def raster(tmp_path):
    """(path, values) of four bands, 20 × 30."""
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 4)).astype(np.uint8)
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=20, width=30, count=4, dtype="uint8"
    ) as file:
        file.write(np.moveaxis(values, -1, 0))
    return path, values


def test_all_bands_of_a_window_come_back(raster):
    path, values = raster
    np.testing.assert_array_equal(bands.read(path, 3, 5, 10, 12), values[3:13, 5:17])


def test_coarser_pixels_are_means_of_native_ones(raster):
    path, values = raster
    found = bands.read(path, 2, 1, 8, 14, factor=2)
    means = values[4:20, 2:30].reshape(8, 2, 14, 2, 4).mean(axis=(1, 3))
    assert np.abs(found - means).max() <= 0.51


def deep_scene(path, values, names=()):
    height, width, count = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype
    ) as file:
        file.write(np.moveaxis(values, -1, 0))
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def test_all_bands_are_brought_to_eight_bits_by_the_range_of_a_run(tmp_path, raster):
    values = raster[1].astype(np.uint16) * 10
    path = deep_scene(tmp_path / "deep.tif", values)
    found = bands.read(
        path, 0, 0, 20, 30, reading=small_configs.section("data.reading", high=2550.0)
    )
    np.testing.assert_array_equal(found, raster[1])


@pytest.mark.parametrize(
    ("names", "chosen", "order"),
    [
        ((), (), [0, 1, 2, 3]),
        ((), (3, 2, 1), [2, 1, 0, 3]),
        ((), (4, 1, 2), [0, 1, 2, 3]),  # infrared shown as red tells nothing of what is red
        (("blue", "green", "red", "nir"), (), [2, 1, 0, 3]),
        (("nir", "red", "green", "blue"), (1, 2, 3), [0, 1, 2, 3]),
    ],
)
def test_colours_come_first_where_something_tells_them(tmp_path, raster, names, chosen, order):
    path = deep_scene(tmp_path / "named.tif", raster[1], names)
    found = bands.read(
        path, 0, 0, 20, 30, reading=small_configs.section("data.reading", bands=chosen)
    )
    np.testing.assert_array_equal(found, raster[1][..., order])


STACK = ("coastal", "blue", "green", "red", "edge", "nir")


@pytest.mark.parametrize(("names", "chosen"), [((), (4, 3, 2)), (STACK, ())])
def test_a_stack_whose_infrared_is_unknown_is_refused(tmp_path, raster, names, chosen):
    path = deep_scene(tmp_path / "stack.tif", np.tile(raster[1][..., :3], 2), names)
    reading = small_configs.section("data.reading", bands=chosen)
    with pytest.raises(SlideError, match=r"stack\.tif, got 6 bands with colours in \(4, 3, 2\)"):
        bands.read(path, 0, 0, 20, 30, reading=reading)


def test_a_stack_that_begins_with_its_colours_is_read(tmp_path, raster):
    values = np.concatenate([raster[1], raster[1][..., :1]], axis=-1)
    path = deep_scene(tmp_path / "stack.tif", values)
    reading = small_configs.section("data.reading", bands=(3, 2, 1))
    found = bands.read(path, 0, 0, 20, 30, reading=reading)
    np.testing.assert_array_equal(found, values[..., [2, 1, 0, 3, 4]])


def test_a_window_beyond_the_border_is_one_line(raster):
    with pytest.raises(SlideError, match=r"expected a window inside .*20 × 30"):
        bands.read(raster[0], 15, 0, 10, 10)


def test_sixteen_bits_and_no_raster_are_one_line(tmp_path):
    path = tmp_path / "deep.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=8, width=8, count=1, dtype="uint16"
    ) as file:
        file.write(np.zeros((1, 8, 8), np.uint16))
    with pytest.raises(SlideError, match="expected bands of 8 bits, got uint16"):
        bands.read(path, 0, 0, 4, 4)
    (tmp_path / "no.tif").write_text("nothing")
    with pytest.raises(SlideError, match=r"expected a raster, got .*no\.tif"):
        bands.read(tmp_path / "no.tif", 0, 0, 4, 4)
