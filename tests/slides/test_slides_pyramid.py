import io
import resource
import subprocess
import sys

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide
from ssldiff_jax.slides import multiband, optional, pyramid, written

REAL = demo_slide.demo_slide()


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


@pytest.mark.parametrize("mpp", [1e6, 5e6, 3e7])
def test_a_pyramid_may_be_as_coarse_as_a_satellite_sees(tmp_path, image_uint8, mpp):
    path = tmp_path / "out.tif"
    pyramid.write_pyramid(path, image_uint8, pyramid.Scale(mpp))
    with openslide.OpenSlide(str(path)) as raw:
        assert raw.level_count > 2
        assert 1e4 / float(raw.properties["tiff.XResolution"]) == pytest.approx(mpp, rel=1e-6)
        assert raw.properties["tiff.XResolution"] == raw.properties["tiff.YResolution"]


def test_pyramid_reads_back(tmp_path, image_uint8):
    path = tmp_path / "out.tif"
    pyramid.write_pyramid(path, image_uint8, pyramid.Scale(0.4321, 95))
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
    pyramid.write_pyramid(tmp_path / "out.tif", image_uint8, pyramid.Scale(0.5, 95))
    small = slides.open_slide(tmp_path / "out.tif").read_region(20, 30, 200, 160, mpp=2.0)
    blocks = image_uint8[80:880, 120:760].reshape(200, 4, 160, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks).mean() < 3


@pytest.mark.parametrize("shape", [(1111, 777), (1023, 513)])
def test_rounded_levels_have_no_white_border(tmp_path, shape):
    path = tmp_path / "dark.tif"
    pyramid.write_pyramid(path, np.zeros((*shape, 3), np.uint8), pyramid.Scale(0.5))
    slide = slides.open_slide(path)
    for mpp in (1.0, 2.0, 2.9, 4.0):
        height, width = slide.shape_at(mpp)
        assert slide.read_region(0, 0, height, width, mpp=mpp).max() < 4


def test_memmap_gives_the_same_file(tmp_path, image_uint8):
    mapped = np.memmap(tmp_path / "canvas", np.uint8, "w+", shape=image_uint8.shape)
    mapped[:] = image_uint8
    pyramid.write_pyramid(tmp_path / "mapped.tif", mapped, pyramid.Scale(0.5))
    pyramid.write_pyramid(tmp_path / "array.tif", image_uint8, pyramid.Scale(0.5))
    assert (tmp_path / "mapped.tif").read_bytes() == (tmp_path / "array.tif").read_bytes()


def test_png_reads_back_exactly(tmp_path, image_uint8):
    pyramid.write_png(tmp_path / "out.png", image_uint8[:50, ::2])
    np.testing.assert_array_equal(Image.open(tmp_path / "out.png"), image_uint8[:50, ::2])


def write(path, image_uint8):
    if path.suffix == ".png":
        pyramid.write_png(path, image_uint8)
    else:
        pyramid.write_pyramid(path, image_uint8, pyramid.Scale(0.5))


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
        written.require(image, multiband.NO_BANDS)


@pytest.fixture
def raw(tmp_path, image_uint8):
    """The same pixels in a file that is never read whole."""
    folder = tmp_path / "raw"
    folder.mkdir()
    image_uint8.tofile(folder / "pixels.raw")
    return pyramid.RawImage(folder / "pixels.raw", *image_uint8.shape[:2])


@pytest.mark.parametrize("name", sorted(pyramid.FORMATS))
def test_files_are_the_same_from_memory_and_from_a_file(
    tmp_path, image_uint8, raw, name, monkeypatch
):
    if name in optional.WRITERS:
        pytest.importorskip(optional.WRITERS[name][0])
    monkeypatch.setattr(written, "STRIP", 99)  # several, the last one shorter
    found = []
    for i, pixels in enumerate((image_uint8, raw)):
        folder = tmp_path / str(i)
        folder.mkdir()
        pyramid.FORMATS[name](folder / f"out.{name}", pixels, pyramid.Scale(0.5))
        found.append(
            {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
    assert found[0].keys() == found[1].keys()
    assert all(found[0][key] == found[1][key] for key in found[0])
    # A COG, and nothing of what was needed in between.
    assert len(found[0]) == 1 or name in ("dzi", *optional.WRITERS)


_WRITE_LARGE = """
import pathlib, sys
from ssldiff_jax.slides import pyramid
from ssldiff_jax.core import memory

raw = pathlib.Path(sys.argv[1])
before = memory.rss_mb()
pixels = pyramid.RawImage(raw, 12288, 12288)
pyramid.write_pyramid(raw.with_suffix(".tif"), pixels, pyramid.Scale(1.0))
print(memory.peak_rss_mb() - before)
"""


def test_a_large_file_of_pixels_is_never_held_whole(tmp_path):
    with open(tmp_path / "pixels.raw", "wb") as raw:
        raw.truncate(3 * 12288**2)  # 453 MB, of zeros that no disk holds
    command = [sys.executable, "-c", _WRITE_LARGE, str(tmp_path / "pixels.raw")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(told.stdout) < 300


def test_ome_tiff_tells_size_and_scale(tmp_path, image_uint8):
    pyramid.write_ome_tiff(tmp_path / "out.ome.tif", image_uint8, pyramid.Scale(0.4321))
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as tiff:
        assert tiff.is_ome
        assert tiff.series[0].shape == image_uint8.shape
        assert len(tiff.series[0].levels) > 2
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 0.4321
        assert pixels["PhysicalSizeXUnit"] == "µm"
    found = pyramid.read_image(tmp_path / "out.ome.tif")
    assert np.abs(found.astype(int) - image_uint8).mean() < 5
    with openslide.OpenSlide(str(tmp_path / "out.ome.tif")) as slide:
        assert slide.dimensions == image_uint8.shape[1::-1]


def test_cog_lies_where_the_reference_does(tmp_path, image_uint8):
    """2 m/px from the corner of a raster of 1 m/px."""
    profile = {
        "driver": "GTiff", "height": 10, "width": 20, "count": 1, "dtype": "uint8",
        "crs": "EPSG:26914", "transform": rasterio.Affine(1, 0, 485899, 0, -1, 5209246),
    }  # fmt: skip
    with rasterio.open(tmp_path / "reference.tif", "w", **profile) as raster:
        raster.write(np.ones((1, 10, 20), np.uint8))
    where = pyramid.georeference(tmp_path / "reference.tif", 2e6)
    moved = where.moved(-3, 5)
    pyramid.write_cog(tmp_path / "out.cog.tif", image_uint8, pyramid.Scale(2e6, 90, moved))
    with rasterio.open(tmp_path / "out.cog.tif") as raster:
        assert raster.crs.to_epsg() == 26914
        assert raster.shape == image_uint8.shape[:2]
        assert raster.res == (2, 2)
        assert raster.xy(0, 0) == (485899 + 10 + 1, 5209246 + 6 - 1)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert len(raster.overviews(1)) >= 1
        found = np.moveaxis(raster.read(), 0, -1)
    assert np.abs(found.astype(int) - image_uint8).mean() < 5


def from_deepzoom(path):
    """The finest level, joined from its tiles without what they overlap by."""
    tiles = path.with_name(f"{path.stem}_files")
    finest = max((int(p.name), p) for p in tiles.iterdir())[1]
    at = {tuple(map(int, p.stem.split("_"))): p for p in finest.iterdir()}
    columns, rows = (max(place) + 1 for place in zip(*at, strict=True))
    cut = lambda row, col: np.asarray(Image.open(at[col, row]))[row > 0 :, col > 0 :][:254, :254]
    return np.concatenate(
        [np.concatenate([cut(r, c) for c in range(columns)], axis=1) for r in range(rows)]
    )


@pytest.mark.parametrize("quality", [80, 90])
def test_files_of_one_quality_are_alike(tmp_path, quality):
    """Mean distance from what was written. Colour keeps its resolution from 90 on, or nowhere; the
    tiles of DeepZoom are YCbCr all the same, whose colour is rounded somewhat more."""
    pixels = slides.open_slide(REAL).read_region(200, 100, 600, 700, mpp=1.3)
    read = dict.fromkeys(("tif", "ome.tif", "cog.tif"), pyramid.read_image)
    errors = {}
    for name, back in (read | {"dzi": from_deepzoom}).items():
        path = tmp_path / f"out.{name}"
        pyramid.FORMATS[name](path, pixels, pyramid.Scale(0.5, quality))
        errors[name] = np.abs(back(path).astype(int) - pixels).mean()
    halved, file = io.BytesIO(), Image.fromarray(pixels)
    file.save(halved, "jpeg", quality=quality, subsampling=2)
    reduced = np.abs(np.asarray(Image.open(halved)).astype(int) - pixels).mean()
    assert errors["cog.tif"] == pytest.approx(errors["tif"], rel=0.02)
    assert errors["ome.tif"] == errors["tif"]
    if quality < 90:
        assert errors["tif"] == pytest.approx(reduced, rel=0.02)
        assert errors["dzi"] == pytest.approx(reduced, rel=0.02)
    else:
        assert errors["tif"] < 0.6 * reduced
        assert errors["dzi"] < 0.9 * reduced


@pytest.mark.parametrize("name", ["tif", "ome.tif", "cog.tif"])
def test_the_scale_of_a_scanner_comes_back_from_every_tiff(tmp_path, image_uint8, name):
    path = tmp_path / f"out.{name}"
    pyramid.FORMATS[name](path, image_uint8[:300, :400], pyramid.Scale(0.4321))
    assert slides.open_slide(path).mpp == pytest.approx(0.4321, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (513, 40), (1500, 1025)])
def test_a_cog_of_any_size_is_one(tmp_path, shape):
    """Overviews down to one tile, of the quality of the whole."""
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[::2] = 200
    pyramid.write_cog(tmp_path / "out.cog.tif", pixels, pyramid.Scale(0.5))
    with rasterio.open(tmp_path / "out.cog.tif") as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        overviews = raster.overviews(1)
        assert raster.shape == shape
    assert overviews == [factor for factor in (2, 4) if max(shape) > 512 * factor / 2]
    for number in range(len(overviews)):
        with rasterio.open(tmp_path / "out.cog.tif", overview_level=number) as raster:
            assert np.abs(raster.read()[:, :-1].astype(int) - 100).max() <= 2


def test_what_is_no_raster_lies_nowhere(tmp_path, image_uint8):
    pyramid.write_png(tmp_path / "plain.png", image_uint8)
    assert pyramid.georeference(tmp_path / "plain.png", 0.5) is None


def test_deepzoom_has_every_level(tmp_path, image_uint8):
    pyramid.write_deepzoom(tmp_path / "out.dzi", image_uint8, pyramid.Scale(0.5))
    text = (tmp_path / "out.dzi").read_text()
    height, width = image_uint8.shape[:2]
    assert f'Height="{height}"' in text
    assert f'Width="{width}"' in text
    levels = {int(p.name) for p in (tmp_path / "out_files").iterdir() if p.is_dir()}
    assert levels == set(range(int(np.ceil(np.log2(max(height, width)))) + 1))
    first = np.asarray(Image.open(tmp_path / "out_files" / str(max(levels)) / "0_0.jpg"))
    assert np.abs(first.astype(int) - image_uint8[: first.shape[0], : first.shape[1]]).mean() < 5


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_a_scale_is_positive(mpp):
    with pytest.raises(ValueError, match=f"expected mpp above 0, got mpp={mpp}"):
        pyramid.Scale(mpp)
