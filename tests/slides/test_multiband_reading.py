import logging
import math

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.enums import ColorInterp, Resampling

from ssldiff_jax import slides
from ssldiff_jax.slides import multiband, pyramid, raster, reading, remote, shown
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides.protocol import SlideError

UTM, METRE = "EPSG:32614", rasterio.Affine(1, 0, 485_000, 0, -1, 5_209_000)
NAIP = ("red", "green", "blue", "nir")


def config_of(*names, low=(), high=(), bits=8, bands=(), shown=()):
    named = multiband.MultibandConfig(names, low, high, bits, shown, ())
    return reading.ReadingConfig(bands, 0.0, 0.0, "stored", named)


def noise(height, width, count, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0.2, 0.3, (height, width, count)).astype(dtype)
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max, (height, width, count), dtype, endpoint=True)


@pytest.fixture
def scene(tmp_path):
    """A function from values (H, W, bands) to a GeoTIFF of them."""

    def write(
        values, name="scene.tif", *, said=None, marked=None, mask=None, overviews=(), **options
    ):
        height, width, count = values.shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "count": count,
            "dtype": values.dtype, "crs": UTM, "transform": METRE,
        }  # fmt: skip
        path = tmp_path / name
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **(profile | options)) as file,
        ):
            file.write(np.moveaxis(values, -1, 0))
            if said:
                file.descriptions = said
            if marked:
                file.colorinterp = marked
            if mask is not None:
                file.write_mask(mask)
            if overviews:
                file.build_overviews(list(overviews), Resampling.average)
        return path

    return write


def image_of(path, config, **options):
    slide = slides.open_slide(path, reading=config, **options)
    try:
        return slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    finally:
        slide.close()


def as_records(values, low, high, bits):
    """One value after the other, in Python's exact numbers."""
    out, top = np.zeros(values.shape, f"uint{bits}"), 2**bits - 1
    for place, value in np.ndenumerate(values):
        part = (float(value) - low[place[-1]]) / (high[place[-1]] - low[place[-1]])
        out[place] = min(max(math.floor(part * top + 0.5), 0), top)
    if values.dtype.kind == "f":
        # Of floats NaN alone has no data.
        out[(out == 0).all(axis=-1)] = 1
    return out


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_values_become_records(scene, count, dtype, bits):
    values = noise(13, 17, count, dtype)
    names = tuple(f"band {n}" for n in range(count))
    low = tuple(-0.1 * n if dtype == "float32" else 7.0 * n for n in range(count))
    high = tuple(0.4 + 0.1 * n if dtype == "float32" else 200.0 + 3000 * n for n in range(count))
    config = config_of(*names, low=low, high=high, bits=bits)
    found = image_of(scene(values, said=names), config)
    np.testing.assert_array_equal(found, as_records(values, low, high, bits))


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 16), ("uint8", 16)])
def test_without_a_range_values_are_as_stored(scene, dtype, bits):
    values = noise(70, 90, 4, dtype)
    path = scene(values, said=NAIP, tiled=True, blockxsize=32, blockysize=32)
    slide = slides.open_slide(path, reading=config_of(*NAIP, bits=bits))
    assert slide.multiband.names == NAIP
    for top, left, height, width in [(0, 0, 70, 90), (31, 33, 35, 50), (69, 89, 1, 1)]:
        found = slide.read_region(top, left, height, width, mpp=slide.mpp)
        assert found.dtype == f"uint{bits}"
        np.testing.assert_array_equal(found, values[top : top + height, left : left + width])


@pytest.mark.parametrize(
    ("dtype", "bits", "message"),
    [
        ("uint16", 8, "expected bands of 8 bits, got uint16 with values"),
        ("int16", 16, "expected bands of 16 bits, got int16 with values"),
        ("float32", 8, "expected bands of 8 bits, got float32 with values"),
        ("complex64", 8, "expected bands of real numbers, got complex64"),
    ],
)
def test_values_that_do_not_fit_ask_for_a_range(scene, dtype, bits, message):
    path = scene(noise(9, 9, 4, "int16").astype(dtype), said=NAIP)
    with pytest.raises(SlideError, match=message) as error:
        slides.open_slide(path, reading=config_of(*NAIP, bits=bits))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_sixteen_bits_that_hold_twelve_are_told(scene, caplog):
    """An encoder would see 16 of 256 grey levels."""
    values = noise(40, 40, 2, "uint16")
    for number, (part, low, is_told) in enumerate([(1, (), 0), (16, (), 1), (16, (5.0, 5.0), 0)]):
        caplog.clear()
        path = scene(values // part, f"{number}.tif", said=("a", "b"))
        image_of(path, config_of("a", "b", low=low, bits=16))
        told = [text for text in caplog.messages if "of 0…65535 are used as they are" in text]
        assert len(told) == is_told
        assert all(text.startswith(f"{path}: values ") for text in told)


def test_bounded_strips_equal_one_read(scene, monkeypatch):
    values = noise(70, 90, 5, "uint16")
    monkeypatch.setattr(raster, "_STRIP_VALUES", 3000)
    monkeypatch.setattr(slide_lib, "_MAX_SOURCE_VALUES", 3000)
    found = image_of(scene(values), config_of(*"abcde", bits=16))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("said", "marked"),
    [
        (("NIR", "Blue", "Red", "Green"), None),
        (("infrared", " BLUE ", "red", "green"), None),
        (None, ("nir", "blue", "red", "green")),
        # A band without a description by its mark.
        (("Near infrared", "", "", "green"), ("undefined", "blue", "red", "undefined")),
    ],
)
def test_bands_are_found_by_what_they_are_called(scene, said, marked, caplog):
    values = noise(20, 30, 4)
    path = scene(values, said=said, marked=marked and [ColorInterp[name] for name in marked])
    found = image_of(path, config_of(*NAIP))
    np.testing.assert_array_equal(found, values[..., [2, 3, 1, 0]])
    found = image_of(path, config_of("Infrared", "red"))
    np.testing.assert_array_equal(found, values[..., [0, 2]])
    assert not caplog.messages


def test_bands_are_found_by_their_numbers(scene):
    values = noise(20, 30, 8)
    path = scene(values, said=("red", "green", "blue", *"abcde"))
    found = image_of(path, config_of("blue", "e", "a", bands=(8, 1, 5)))
    np.testing.assert_array_equal(found, values[..., [7, 0, 4]])
    with pytest.raises(SlideError, match=r"reading\.bands in 1…8 for .*scene\.tif, got \(9,\)"):
        slides.open_slide(path, reading=config_of("a", bands=(9,)))


def test_bands_without_names_are_taken_in_their_order(scene, caplog):
    values = noise(20, 30, 4)
    path = scene(values, "naip.tif", photometric="RGB", alpha="unspecified")
    for _ in range(2):
        np.testing.assert_array_equal(image_of(path, config_of(*NAIP)), values)
    said = "the first 4 of 4 bands are used as red, green, blue, nir: not all are called so"
    assert [message for message in caplog.messages if "used as" in message] == [f"{path}: {said}"]
    with caplog.at_level(logging.WARNING):
        found = image_of(path := scene(values, "b.tif"), config_of("b1", "b2"))
    np.testing.assert_array_equal(found, values[..., :2])
    assert f"{path}: the first 2 of 4 bands are used as b1, b2" in caplog.text


@pytest.mark.parametrize("names", [NAIP, ("red", "green", "infrared"), ("pan", "blue")])
def test_an_order_that_labels_contradict_is_refused(scene, names):
    marked = [ColorInterp[name] for name in ("blue", "green", "red", "undefined")]
    path = scene(noise(9, 9, 4), marked=marked)
    with pytest.raises(SlideError, match=r"got 1 is blue.*pass --config\.data\.reading\.bands"):
        slides.open_slide(path, reading=config_of(*names))


def test_a_label_that_is_nearly_a_name_is_refused(scene):
    """The fourth band would be taken for B8, as the first three are called by the names."""
    path = scene(noise(9, 9, 5), said=("B02", "B03", "B04", "B05", "B08"))
    with pytest.raises(SlideError, match=r"b8 in .*got 4 is b05: pass --config\.data\.reading\.b"):
        slides.open_slide(path, reading=config_of("B02", "B03", "B04", "B8"))


def test_fewer_bands_than_names_are_refused(scene):
    path = scene(noise(9, 9, 3), photometric="RGB")
    with pytest.raises(SlideError) as error:
        slides.open_slide(path, reading=config_of(*NAIP))
    assert str(error.value) == (
        f"expected 4 bands (red, green, blue, nir) or more, got 3 bands in {path}"
    )
    rgba = noise(9, 9, 4)
    rgba[..., 3] = np.where(rgba[..., 3] > 99, 255, 0)
    path = scene(rgba, "rgba.tif", photometric="RGB", alpha="yes")
    with pytest.raises(SlideError, match="got 3 and a mask, band 4, in"):
        slides.open_slide(path, reading=config_of(*NAIP))


def test_a_band_called_alpha_masks_only_where_it_is_not_named(scene):
    values = noise(20, 30, 4)
    values[..., 3] = np.where(values[..., 3] > 99, 255, 0)
    path = scene(values, photometric="RGB", alpha="yes")
    found = image_of(path, config_of("red", "blue"))
    expected = values[..., [0, 2]] * (values[..., 3:] > 0)
    np.testing.assert_array_equal(found, expected)
    found = image_of(path, config_of("red", "heights", bands=(1, 4)))
    np.testing.assert_array_equal(found, values[..., [0, 3]])


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_nodata_in_all_chosen_bands_is_0(scene, dtype):
    values = noise(20, 30, 3, "uint8").astype(dtype) + 1
    values[:7] = -9999
    values[7:9, :, 0] = -9999
    path = scene(values, nodata=-9999, said=("a", "b", "c"))
    # What lies below the range becomes 0 in its own band alone.
    config = config_of("a", "b", low=(-1, -1), high=(254, 254))
    found = image_of(path, config)
    assert (found[:7] == 0).all()
    assert (found[7:9, :, 0] == 0).all()
    np.testing.assert_array_equal(found[7:, :, 1], (values[7:, :, 1] + 1).clip(0, 255))
    np.testing.assert_array_equal(found[9:, :, 0], (values[9:, :, 0] + 1).clip(0, 255))


def test_not_a_number_in_one_band_is_no_data(scene):
    values = noise(20, 30, 2, "float32")
    values[3:5, 4:9, 1] = np.nan
    config = config_of("a", "b", low=(-9, -9), high=(9, 9), bits=16)
    found = image_of(scene(values, said=("a", "b")), config)
    assert (found[3:5, 4:9] == 0).all()
    assert found.astype(bool).all(axis=-1).sum() == 600 - 10


def test_a_mask_of_the_dataset_is_0(scene):
    values, mask = noise(40, 60, 4, "uint16") | 1, np.full((40, 60), 255, np.uint8)
    mask[:11, 5:] = 0
    found = image_of(scene(values, mask=mask, said=NAIP), config_of(*NAIP, bits=16))
    np.testing.assert_array_equal(found, values * (mask > 0)[..., None])


def weights(first, count, factor, size):
    """Parts of source pixels in output pixels, (count, size), and what of each lies inside."""
    out = np.zeros((count, size))
    for row in range(count):
        for tap in range(size):
            low = max((first + row) * factor, tap)
            out[row, tap] = max(min((first + row + 1) * factor, tap + 1) - low, 0) / factor
    return out


@pytest.mark.parametrize(("dtype", "factor"), [("uint16", 2.7), ("uint16", 2.0), ("uint8", 3.3)])
def test_other_scales_are_means_and_0_beyond_the_border(scene, dtype, factor):
    values = noise(41, 53, 5, dtype)
    bits = np.dtype(dtype).itemsize * 8
    path = scene(values, said=list("abcde"))
    slide = slides.open_slide(path, reading=config_of(*"abcde", bits=bits))
    top, left, height, width = -2, -3, 24, 30
    found = slide.read_region(top, left, height, width, mpp=slide.mpp * factor)
    rows, cols = weights(top, height, factor, 41), weights(left, width, factor, 53)
    exact = np.einsum("ay,bx,yxc->abc", rows, cols, values.astype(float))
    # Of what lies inside alone.
    inside = np.outer(rows.sum(axis=1), cols.sum(axis=1))[..., None]
    exact = np.divide(exact, inside, out=np.zeros_like(exact), where=inside > 1e-9)
    off = np.abs(found - exact)
    # Half a value, and what single precision costs: 2⁻²⁴ of the largest value, some times over.
    assert off.max() < 0.5 + 0.02 * (bits == 16)
    assert (found[:2] == 0).all()
    assert (found[:, :3] == 0).all()
    assert found[2:12, 3:15].min() > 0


def test_finer_pixels_stay_in_range(scene):
    values = np.where(noise(30, 30, 2, "uint16") > 2**15, 65535, 0).astype(np.uint16)
    slide = slides.open_slide(scene(values, said=("a", "b")), reading=config_of(*"ab", bits=16))
    found = slide.read_region(0, 0, 60, 60, mpp=slide.mpp / 2)
    assert found.dtype == np.uint16
    assert (found.min(), found.max()) == (0, 65535)
    means = found.reshape(30, 2, 30, 2, 2).mean(axis=(1, 3))
    assert np.corrcoef(means.ravel(), values.ravel())[0, 1] > 0.9


def test_overviews_are_levels(scene):
    values = noise(256, 192, 4, "uint16")
    path = scene(values, said=NAIP, overviews=(2, 4), nodata=0)
    slide = slides.open_slide(path, reading=config_of(*NAIP[::-1], bits=16))
    for number in range(2):
        with rasterio.open(path, overview_level=number) as file:
            expected = np.moveaxis(file.read([4, 3, 2, 1]), 0, -1)
        found = slide.read_region(0, 0, *expected.shape[:2], mpp=slide.mpp * 2 ** (number + 1))
        np.testing.assert_array_equal(found, expected)


def test_an_image_that_lies_nowhere(tmp_path):
    values = noise(40, 50, 5, "uint16")
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
    config = config_of(*"abcde", bits=16)
    np.testing.assert_array_equal(image_of(path, config, mpp=0.5), values)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_images_are_upright(tmp_path, orientation):
    values = noise(40, 50, 4)
    path = tmp_path / "image.tif"
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=(0,), extratags=[tag])
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    found = image_of(path, config_of(*NAIP), mpp=0.5)
    np.testing.assert_array_equal(found, np.rot90(values, turns))


def test_pictures_have_colours_alone(tmp_path):
    rgb = noise(40, 50, 3)
    path = tmp_path / "image.png"
    Image.fromarray(rgb).save(path)
    found = image_of(path, config_of("blue", "red"), mpp=0.5)
    np.testing.assert_array_equal(found, rgb[..., [2, 0]])
    deep = config_of("Green", low=(0,), high=(510,), bits=16)
    np.testing.assert_array_equal(
        image_of(path, deep, mpp=0.5), as_records(rgb[..., 1:2], (0,), (510,), 16)
    )
    with pytest.raises(SlideError) as error:
        slides.open_slide(path, mpp=0.5, reading=config_of(*NAIP))
    assert str(error.value) == (
        "expected a raster or OME-Zarr with bands red, green, blue, nir, got a slide or picture of "
        f"red, green and blue, {path}"
    )


def test_slides_of_scanners_have_colours_alone(tmp_path):
    path, rgb = tmp_path / "slide.tif", noise(300, 300, 3)
    # At a scale of an objective, the file says so as scanners do.
    pyramid.write_pyramid(path, rgb, pyramid.Scale(0.5))
    with pytest.raises(SlideError, match=r"got a slide or picture of red, green and blue"):
        slides.open_slide(path, reading=config_of(*NAIP))
    found = image_of(path, config_of("green"))
    np.testing.assert_array_equal(found, image_of(path, reading.AS_STORED)[..., 1:2])


def test_a_table_of_colours_is_no_band(scene):
    path = scene(noise(9, 9, 1))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (9, 9, 9, 255)})
    with pytest.raises(SlideError, match=r"got indices of a table of colours in .*scene\.tif"):
        slides.open_slide(path, reading=config_of("height"))


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_file_that_is_too_short_is_one_line(scene, part):
    path = scene(noise(300, 300, 4, "uint16"), said=NAIP, tiled=True, blockxsize=64, blockysize=64)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(SlideError) as error:
        image_of(path, config_of(*NAIP, bits=16))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_raster_behind_an_address(scene):
    import fsspec

    values = noise(30, 40, 4, "uint16")
    path = scene(values, said=NAIP)
    fsspec.filesystem("memory").pipe("/many/scene.tif", path.read_bytes())
    slide = remote.open_remote("memory://many/scene.tif", reading=config_of(*NAIP, bits=16))
    np.testing.assert_array_equal(slide.read_region(0, 0, 30, 40, mpp=slide.mpp), values)
    assert shown.read(slide, 0, 0, 30, 40, mpp=slide.mpp).dtype == np.uint8
    slide.close()


def test_what_is_shown_is_rgb_on_white(scene):
    values = noise(30, 40, 4, "uint16") | 1
    values[:5] = 0
    slide = slides.open_slide(scene(values, said=NAIP), reading=config_of(*NAIP, bits=16))
    found = shown.read(slide, 0, -2, 30, 42, mpp=slide.mpp)
    expected = np.round(values[5:, :, :3] / 257)
    np.testing.assert_array_equal(found[5:, 2:], expected)
    assert (found[:5] == 255).all()
    assert (found[:, :2] == 255).all()
    # RGB of three named bands is not written to.
    eight = values.astype(np.uint8)[..., :3]
    slide = slides.open_slide(scene(eight, "b.tif", said=NAIP[:3]), reading=config_of(*NAIP[:3]))
    kept = slide_lib.slide_of("kept", eight, mpp=1.0, multiband=slide.multiband)
    shown.read(kept, 0, 0, 30, 40, mpp=1.0)
    assert (eight[:5] == 0).all()


def test_identity_is_of_pixels_where_no_file_holds_them():
    bands = config_of(*NAIP, bits=16).multiband
    one, two = (noise(5, 6, 4, "uint16", seed) for seed in (0, 1))
    hashes = {
        slide_lib.identity(slide_lib.slide_of("a", pixels, mpp=1.0, multiband=bands))
        for pixels in (one, one.copy(), two)
    }
    assert len(hashes) == 2
