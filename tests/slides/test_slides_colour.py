import base64
import io
import struct

import numpy as np
import openslide
import pytest
import rasterio
import small_configs
import tifffile
from PIL import Image, ImageCms

from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import colour, reading

SRGB = small_configs.section("data.reading", colour="srgb")


def swapped_profile():
    """sRGB with its first two primaries swapped: red pixels are green light."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", content, 128)
    tags = range(132, 132 + 12 * count, 12)
    swap = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    for at in tags:
        content[at : at + 4] = swap.get(bytes(content[at : at + 4]), content[at : at + 4])
    return bytes(content)


SWAPPED = swapped_profile()


def noise(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def by_littlecms(image_uint8, profile=SWAPPED):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.asarray(
        ImageCms.profileToProfile(
            Image.fromarray(image_uint8), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    )


def image_of(path, config=SRGB, mpp=1.0):
    slide = slides.open_slide(path, mpp=mpp, reading=config)
    return slide.read_region(0, 0, *slide.shape, mpp=mpp)


def test_the_made_profile_swaps_red_and_green():
    red = np.full((1, 1, 3), [255, 0, 0], np.uint8)
    np.testing.assert_allclose(by_littlecms(red)[0, 0].astype(int), [0, 255, 0], atol=3)


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_plain_images_are_converted_when_asked(tmp_path, name):
    image = noise()
    Image.fromarray(image).save(tmp_path / name, icc_profile=SWAPPED)
    np.testing.assert_array_equal(image_of(tmp_path / name), by_littlecms(image))
    np.testing.assert_array_equal(image_of(tmp_path / name, reading.AS_STORED), image)


def test_transparency_and_gray_survive_the_conversion(tmp_path):
    image = np.dstack([noise(), np.full((40, 60), 255, np.uint8)])
    image[:10, :, 3] = 0
    Image.fromarray(image).save(tmp_path / "clear.png", icc_profile=SWAPPED)
    found = image_of(tmp_path / "clear.png")
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:], by_littlecms(noise()[10:]))
    gray = noise()[..., 0]
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "gray.png", icc_profile=SWAPPED)
    expected = by_littlecms(np.repeat(gray[..., None], 3, axis=-1))
    np.testing.assert_array_equal(image_of(tmp_path / "gray.png"), expected)


def test_files_without_a_profile_stay_as_stored(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "image.png")
    np.testing.assert_array_equal(image_of(tmp_path / "image.png"), noise())
    real = demo_slide.demo_slide()
    found = slides.open_slide(real, reading=SRGB).read_region(900, 700, 50, 90, mpp=0.5)
    stored = slides.open_slide(real).read_region(900, 700, 50, 90, mpp=0.5)
    np.testing.assert_array_equal(found, stored)


@pytest.fixture
def scanned(tmp_path):
    """(path, pixels) of a slide for OpenSlide, with a profile of those bytes."""

    def write(profile):
        image = noise(300, 500)
        path = tmp_path / "scanned.tif"
        tifffile.imwrite(path, image, tile=(128, 128), photometric="rgb", iccprofile=profile)
        assert openslide.OpenSlide.detect_format(str(path)) == "generic-tiff"
        return path, image

    return write


def test_slides_are_converted_region_by_region(scanned):
    path, image = scanned(SWAPPED)
    np.testing.assert_array_equal(image_of(path, reading.AS_STORED), image)
    np.testing.assert_array_equal(image_of(path), by_littlecms(image))
    slide = slides.open_slide(path, mpp=1.0, reading=SRGB)
    corner = slide.read_region(290, 490, 20, 20, mpp=1.0)
    np.testing.assert_array_equal(corner[:10, :10], by_littlecms(image[290:, 490:]))
    assert (corner[10:] == 255).all()


def test_rasters_are_converted(tmp_path):
    profile = {
        "driver": "GTiff", "height": 40, "width": 60, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32614", "transform": rasterio.Affine(1, 0, 5, 0, -1, 5),
        "SOURCE_ICC_PROFILE": base64.b64encode(SWAPPED).decode(),
    }  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
        file.write(np.moveaxis(noise(), -1, 0))
    np.testing.assert_array_equal(image_of(tmp_path / "scene.tif", mpp=1e6), by_littlecms(noise()))


def test_a_broken_profile_is_one_line(tmp_path, scanned):
    broken, _ = scanned(b"no profile" * 20)
    Image.fromarray(noise()).save(tmp_path / "broken.png", icc_profile=b"no profile" * 20)
    for path in (broken, tmp_path / "broken.png"):
        assert image_of(path, reading.AS_STORED).shape[-1] == 3
        with pytest.raises(slides.SlideError, match=path.name) as caught:
            image_of(path)
        assert "\n" not in str(caught.value)


def test_a_profile_of_other_pixels_is_refused(tmp_path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "inks.tif", icc_profile=SWAPPED)
    with pytest.raises(slides.SlideError, match=r"inks\.tif: .*mode RGB as .*, got CMYK"):
        image_of(tmp_path / "inks.tif")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    with pytest.raises(ValueError, match="RGB, gray or CMYK pixels, got Lab"):
        colour.ToSrgb(lab)
