"""Whatever opens a user's image reads it by the run's `data.reading`, as its slides are read."""

import ast
import logging
import pathlib

import numpy as np
import pytest
import rasterio
import small_configs
import tifffile
from fsspec.implementations import local
from PIL import Image
from rasterio import Affine

import ssldiff_jax
from configs import tiny
from ssldiff_jax import slides
from ssldiff_jax.core import schema
from ssldiff_jax.data import patch_list
from ssldiff_jax.generation import user_images
from ssldiff_jax.runs.config import run as run_config

PX = 64


def data_config(mpp=0.0, **reading):
    values = tiny.get_config().to_dict()
    values["data"]["patch_mpp"], values["data"]["mpp"] = 1e6, mpp
    values["data"]["reading"] |= reading
    return schema.build(run_config.RunConfig, values).data


def write_raster(path, values, **more):
    height, width, count = values.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": count,
        "dtype": values.dtype, "crs": "EPSG:32618", "transform": Affine(1, 0, 4e5, 0, -1, 4.4e6),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile | more) as file:
        file.write(np.moveaxis(values, -1, 0))
    return path


VALUES = np.random.default_rng(0).integers(0, 200, (PX, PX, 4), np.uint8)
READINGS = {
    "bands": (VALUES, {"bands": (3, 2, 1)}, VALUES[..., [2, 1, 0]]),
    "one band": (VALUES, {"bands": (4,)}, VALUES[..., [3, 3, 3]]),
    "range": (VALUES.astype(np.uint16) * 10, {"low": 0.0, "high": 2550.0}, VALUES[..., :3]),
    "both": (
        VALUES.astype(np.uint16) * 10, {"bands": (4, 1, 2), "high": 2550.0}, VALUES[..., [3, 0, 1]],
    ),
}  # fmt: skip


def by_slides(data, path):
    slide = slides.open_slide(path, reading=data.reading)
    return slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)


def by_tools(data, path):
    return user_images.UserImage.open(data, str(path)).pixels


def by_folder(data, path):
    return patch_list.open_list(f"folder:{path.parent}", data.reading).read(0)


def by_compare(data, path):
    return patch_list.open_list(f"folder:{path.parent}", data.reading, pictures="as stored").read(0)


def by_list(data, path):
    np.save(path.parent / "list.npy", np.array([path.name]))
    found = patch_list.open_list(str(path.parent / "list.npy"), data.reading)
    assert found.shape(0) == (PX, PX)
    return found.read(0)


WAYS = [by_slides, by_tools, by_folder, by_compare, by_list]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", READINGS)
def test_a_raster_is_read_alike(tmp_path, way, name):
    stored, reading, expected = READINGS[name]
    path = write_raster(tmp_path / "scene.tif", stored)
    np.testing.assert_array_equal(way(data_config(**reading), path), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_raster_of_sixteen_bits_without_a_range_is_refused_alike(tmp_path, way):
    path = write_raster(tmp_path / "scene.tif", VALUES.astype(np.uint16))
    with pytest.raises(ValueError, match=r"bands of 8 bits, got uint16 with values .*scene\.tif"):
        way(data_config(), path)


@pytest.mark.parametrize("way", WAYS)
def test_a_profile_counts_alike(tmp_path, way, monkeypatch):
    """What the profile does is another test's: here, that it is asked everywhere, and only then."""
    monkeypatch.setattr(
        "ssldiff_jax.slides.colour.ToSrgb.from_bytes",
        lambda profile: lambda image: Image.eval(image, lambda value: 255 - value),
    )
    path = tmp_path / "image.png"
    Image.fromarray(VALUES[..., :3]).save(path, icc_profile=b"a profile")
    data = data_config(mpp=1e6, colour="srgb")
    if way is by_slides:
        slide = slides.open_slide(path, mpp=1e6, reading=data.reading)
        found = slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    else:
        found = way(data, path)
    np.testing.assert_array_equal(found, 255 - VALUES[..., :3])
    stored = patch_list.open_list(f"folder:{tmp_path}").read(0)
    np.testing.assert_array_equal(stored, VALUES[..., :3])


def test_pictures_have_no_bands_but_are_no_slides_of_such_a_run(tmp_path, caplog):
    """What tools write and are given back is in colours; a training on it would be a mistake."""
    path, data = tmp_path / "drawn.png", data_config(bands=(3, 2, 1))
    Image.fromarray(VALUES[..., :3]).save(path)
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        found = user_images.UserImage.open(data, str(path)).pixels
    np.testing.assert_array_equal(found, VALUES[..., :3])
    assert f"{path} is a picture" in caplog.text
    np.testing.assert_array_equal(by_compare(data, path), VALUES[..., :3])
    for way in (by_slides, by_folder, by_list):
        with pytest.raises(ValueError, match=r"config\.data\.reading\.bands.*drawn\.png"):
            way(data, path)


def test_pixels_have_no_bands_to_choose_but_can_be_compared(tmp_path):
    path, chosen = tmp_path / "pixels.npy", small_configs.section("data.reading", bands=(1,))
    np.save(path, VALUES[None, ..., :3])
    with pytest.raises(patch_list.PatchListError, match=r"pixels\.npy: expected rasters for"):
        patch_list.open_list(str(path), chosen)
    found = patch_list.open_list(str(path), chosen, pictures="as stored").read(0)
    np.testing.assert_array_equal(found, VALUES[..., :3])


def test_the_scale_of_a_run_is_that_of_its_tools(tmp_path):
    """Named for the tool, else for the run, else the file's, else that of patches."""
    path = write_raster(tmp_path / "scene.tif", np.zeros((4 * PX, 4 * PX, 3), np.uint8))
    size = lambda data, **options: user_images.UserImage.open(data, str(path), **options).size
    assert size(data_config()) == (4 * PX, 4 * PX)
    assert size(data_config(mpp=0.5e6)) == (2 * PX, 2 * PX)
    assert size(data_config(mpp=0.5e6), mpp=0.25e6) == (PX, PX)
    plain = tmp_path / "plain.png"
    Image.new("RGB", (PX, 2 * PX)).save(plain)
    assert user_images.UserImage.open(data_config(), str(plain)).size == (2 * PX, PX)


def test_a_mask_is_read_as_it_is_stored(tmp_path):
    Image.new("L", (8, 4), 200).save(tmp_path / "mask.png")
    found = user_images.read_mask(str(tmp_path / "mask.png"))
    np.testing.assert_array_equal(found, np.full((4, 8, 3), 200, np.uint8))


@pytest.mark.parametrize("nodata", [None, 0, 10, 255])
@pytest.mark.parametrize("count", [1, 3])
def test_no_data_of_a_mask_is_a_value_of_it(tmp_path, nodata, count):
    """GIS tools call the black of a mask its nodata: it is no white."""
    stored = np.repeat(np.arange(0, 255, 5, np.uint8).reshape(3, 17, 1), count, axis=-1)
    write_raster(tmp_path / "mask.tif", stored, nodata=nodata)
    found = user_images.read_mask(str(tmp_path / "mask.tif"))
    np.testing.assert_array_equal(found, np.broadcast_to(stored, (3, 17, 3)))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_a_transparent_mask_is_neither_black_nor_white(tmp_path, mode):
    """Some tools paint what is drawn, others erase it."""
    image = Image.new(mode, (8, 4))
    image.save(tmp_path / "mask.png", **({"transparency": 0} if mode == "P" else {}))
    with pytest.raises(slides.SlideError, match=r"black and white alone, got transp.*mask\.png"):
        user_images.read_mask(str(tmp_path / "mask.png"))
    opaque = Image.new("LA", (8, 4), (9, 255))
    opaque.save(tmp_path / "mask.png")
    assert (user_images.read_mask(str(tmp_path / "mask.png")) == 9).all()


def test_no_data_of_a_turned_mask_has_no_place(tmp_path):
    told = {"photometric": "minisblack", "metadata": None}
    tags = [(274, "H", 1, 6, True), (42113, "s", 2, "0", True)]  # orientation, GDAL's nodata
    stored = np.pad(np.full((4, 2), 255, np.uint8), 2)
    tifffile.imwrite(tmp_path / "mask.tif", stored, extratags=tags, **told)
    with pytest.raises(slides.SlideError, match="black and white alone"):
        user_images.read_mask(str(tmp_path / "mask.tif"))
    tifffile.imwrite(tmp_path / "mask.tif", stored, extratags=tags[1:], **told)
    found = user_images.read_mask(str(tmp_path / "mask.tif"))
    np.testing.assert_array_equal(found[..., 0], stored)


def test_a_mask_of_zeros_and_ones_is_not_all_black(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(path)
    with pytest.raises(slides.SlideError, match=r"0 \(black\) to 255 \(white\), got 0…1 .*mask\."):
        user_images.read_mask(str(path))
    Image.fromarray(np.eye(8) > 0).save(path)
    np.testing.assert_array_equal(user_images.read_mask(str(path))[..., 0], 255 * np.eye(8))


@pytest.fixture(params=["with lists", "without"])
def address(request, monkeypatch):
    """A function from a path to an address of it, on a server that lists folders, or not."""
    if request.param == "without":

        def refuse(self, path, detail=False, **options):
            raise FileNotFoundError(path)

        monkeypatch.setattr(local.LocalFileSystem, "ls", refuse)
    return lambda path: path.absolute().as_uri()


def test_a_copied_raster_is_read_with_what_lies_beside_it(tmp_path, address):
    """Mask, place and scale: without them it is other pixels, elsewhere, of another size."""
    path = tmp_path / "scene.tif"
    stored = {"driver": "GTiff", "height": PX, "width": PX, "count": 3, "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(path, "w", crs="EPSG:32618", **stored) as file,
    ):
        file.write(np.moveaxis(VALUES[..., :3], -1, 0))
        file.write_mask(np.arange(PX * PX).reshape(PX, PX) >= PX * PX // 2)
    (tmp_path / "scene.tfw").write_text("1\n0\n0\n-1\n400000.5\n4399999.5\n")
    near = user_images.UserImage.open(data_config(), str(path))
    far = user_images.UserImage.open(data_config(), address(path))
    assert (near.pixels[: PX // 2] == 255).all()
    np.testing.assert_array_equal(far.pixels, near.pixels)
    assert far.place == near.place
    assert far.place.transform == (1, 0, 4e5, 0, -1, 4.4e6)


def test_a_picture_is_one_at_an_address_too(tmp_path):
    path, data = tmp_path / "drawn.png", data_config(bands=(3, 2, 1))
    Image.fromarray(VALUES[..., :3]).save(path)
    found = user_images.UserImage.open(data, path.absolute().as_uri())
    np.testing.assert_array_equal(found.pixels, VALUES[..., :3])
    mask = user_images.read_mask(path.absolute().as_uri())
    np.testing.assert_array_equal(mask, VALUES[..., :3])


def test_an_error_names_the_address_and_no_copy(tmp_path):
    write_raster(tmp_path / "scene.tif", VALUES.astype(np.uint16))
    address = (tmp_path / "scene.tif").absolute().as_uri()
    with pytest.raises(slides.SlideError) as error:
        user_images.UserImage.open(data_config(), address)
    assert f" in {address}: " in str(error.value)


OPENERS = {"open_slide", "open_remote", "open_backend", "open_list"}
"""Functions to which a reading is passed."""
OWN = {
    "stages/tools/bench/archive.py",  # slides that it makes
    "generation/user_images.py",  # masks
    "generation/areas.py",  # places in an image, no pixels
    "data/own_scale.py",  # the scale that a file says, no pixels
    "slides/slide.py",
    "slides/remote.py",
    "data/patch_list.py",
}


def test_no_other_code_opens_an_image_without_a_reading():
    root = pathlib.Path(ssldiff_jax.__file__).parent
    without = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or name in OWN:
                continue
            called = getattr(call.func, "attr", getattr(call.func, "id", ""))
            passed = [ast.unparse(a) for a in (*call.args, *(k.value for k in call.keywords))]
            if called in OPENERS and not any("reading" in argument for argument in passed):
                without.append(f"{name}:{call.lineno}")
    assert without == []
