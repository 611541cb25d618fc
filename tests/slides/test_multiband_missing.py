"""What has no data, and what is data that is 0, of bands that a config names."""

import numpy as np
import pytest
import rasterio
import zarr
from rasterio.enums import Resampling

from ssldiff_jax import slides
from ssldiff_jax.slides import geotiff, multiband, reading, shown, written

UTM, METRE = "EPSG:32614", rasterio.Affine(1, 0, 485_000, 0, -1, 5_209_000)


def config_of(*names, low=(), high=(), bits=16):
    named = multiband.MultibandConfig(names, low, high, bits, (), ())
    return reading.ReadingConfig((), 0.0, 0.0, "stored", named)


def scene(path, values, *, mask=None, **options):
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count, crs=UTM,
            dtype=values.dtype, transform=METRE, photometric="MINISBLACK", **options,
        ) as file,
    ):  # fmt: skip
        file.write(values)
        file.descriptions = "abcdefgh"[:count]
        if mask is not None:
            file.write_mask(mask)
    return path


def read(path, config, scale=1.0):
    slide = slides.open_slide(path, reading=config, mpp=1e6)
    height, width = slide.shape_at(scale * 1e6)
    return slide.read_region(0, 0, height, width, mpp=scale * 1e6)


def with_holes(count=3, side=60):
    source = np.random.default_rng(1)
    values = source.integers(2000, 60000, (count, side, side), dtype=np.uint16)
    values[0, source.random((side, side)) < 0.1] = 0
    holes = source.random((side, side)) < 0.3
    holes[20:34, 10:40] = True
    values[:, holes] = 0
    return values, holes


def test_means_of_coarser_scales_are_gdal_s(tmp_path):
    """GDAL leaves no data out of its averages, too: here by a mask, which is of all bands."""
    values, holes = with_holes()
    mask = np.where(holes, 0, 255).astype(np.uint8)
    path = scene(tmp_path / "scene.tif", values, mask=mask)
    found = read(path, config_of(*"abc"), 2)
    with rasterio.open(path) as file:
        expected = file.read(out_shape=(3, 30, 30), resampling=Resampling.average)
        present = file.read_masks(1, out_shape=(30, 30), resampling=Resampling.average) > 0
    # GDAL fills what has no data as it likes.
    expected = np.moveaxis(expected, 0, -1) * present[..., None]
    assert 0 < (~present).sum() < present.size
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("scale", [2.0, 2.7, 3.4])
def test_means_are_of_data_alone(tmp_path, scale):
    values, holes = with_holes()
    found = read(scene(tmp_path / "scene.tif", values, nodata=0), config_of(*"abc"), scale)
    for row in range(0, found.shape[0], 3):
        for col in range(0, found.shape[1], 3):
            rows, cols = (
                [max(min((n + 1) * scale, t + 1) - max(n * scale, t), 0) for t in range(60)]
                for n in (row, col)
            )
            weight = np.outer(rows, cols) * ~holes
            expected = np.zeros(3)
            if weight.sum() > 1e-6:
                expected = (values * weight).sum(axis=(1, 2)) / weight.sum()
            np.testing.assert_allclose(found[row, col], expected, atol=0.6)


def test_finer_pixels_are_of_data_alone(tmp_path):
    values = np.full((2, 20, 20), 500, np.uint16)
    values[:, :, 8:] = 0
    found = read(scene(tmp_path / "scene.tif", values, nodata=0), config_of("a", "b"), 0.5)
    assert (found[:, :16] == 500).all()
    assert (found[:, 16:] == 0).all()


def test_zeros_that_nothing_calls_no_data_count_in_means(tmp_path):
    values = np.zeros((1, 20, 20), np.uint8)
    values[0, ::2, ::2] = 40
    found = read(scene(tmp_path / "scene.tif", values), config_of("a", bits=8), 2)
    assert (found == 10).all()


@pytest.mark.parametrize("said", ["nodata", "mask", "nan"])
def test_data_below_the_range_is_no_lack_of_data(tmp_path, said):
    """A height of 0 m, and a radar's echo below its range, where the file says what has none."""
    values = np.full((1, 20, 20), 3, np.float32)
    values[0, 0] = 0
    values[0, 1] = -7
    values[0, 2] = np.nan if said == "nan" else -9999
    mask = np.full((20, 20), 255, np.uint8)
    mask[2] = 0
    options = {"nodata": {"nodata": -9999}, "mask": {"mask": mask}, "nan": {}}[said]
    path = scene(tmp_path / "dem.tif", values, **options)
    found = read(path, config_of("a", low=(0.0,), high=(6.0,)))
    assert (found[:2] == 1).all()
    assert (found[2] == 0).all()
    assert (found[3:] == 32768).all()
    slide = slides.open_slide(path, reading=config_of("a", low=(0.0,), high=(6.0,)))
    picture = shown.read(slide, 0, 0, 20, 20, mpp=slide.mpp)
    assert (picture[:2] == 0).all()
    assert (picture[2] == 255).all()
    # A mean of the least values is one of data.
    assert (read(path, config_of("a", low=(2.9,), high=(6.0,)), 2)[0] == 1).all()


def test_floats_of_ome_zarr_say_by_nan_what_has_no_data(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2, attributes={
        "multiscales": [{
            "version": "0.4", "axes": [{"name": name} for name in "cyx"],
            "datasets": [{"path": "0"}],
        }],
    })  # fmt: skip
    values = np.full((2, 40, 40), 1, np.float32)
    values[:, 0] = 0
    values[1, 1] = np.nan
    group.create_array("0", data=values)
    config = config_of("a", "b", low=(0.0, 0.0), high=(2.0, 2.0))
    found = read(tmp_path / "x.zarr", config)
    assert (found[0] == 1).all()
    assert (found[1] == 0).all()
    assert (read(tmp_path / "x.zarr", config, 2)[0] == 1).all()


@pytest.mark.parametrize("names", [("red", "red"), ("red", "Red"), ("nir", "infrared")])
def test_names_of_one_band_are_refused(names):
    """Both would be found at one place of a file."""
    with pytest.raises(ValueError, match="one to 8 names that differ, got"):
        config_of(*names)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_was_written_with_a_range_is_read_with_it_as_it_is(tmp_path, bits):
    """A run's own image, or its records, as a reference: not scaled once more."""
    low, high = (-0.1, 0.0, -25.0), (0.9, 1 / 3, 3.0)
    config = config_of("a", "b", "c", low=low, high=high, bits=bits)
    top = 2**bits - 1
    pixels = np.random.default_rng(0).integers(1, top, (30, 40, 3), config.multiband.dtype)
    scale = written.Scale(1e6, bands=config.multiband)
    geotiff.write_bands(tmp_path / "own.tif", pixels, scale)
    np.testing.assert_array_equal(read(tmp_path / "own.tif", config), pixels)
    order = config_of("c", "a", low=(low[2], low[0]), high=(high[2], high[0]), bits=bits)
    np.testing.assert_array_equal(read(tmp_path / "own.tif", order), pixels[..., [2, 0]])
    # Another range is one of the stored numbers.
    other = config_of("a", low=(0.0,), high=(top / 2,), bits=bits)
    found = read(tmp_path / "own.tif", other)[..., 0]
    np.testing.assert_array_equal(found, np.minimum(2 * pixels[..., 0].astype(int), top))
