import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
import rasterio
import small_configs
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide


def refusal(path, **options):
    """The one line that opening a file ends with."""
    with pytest.raises(slides.SlideError) as caught:
        slides.open_slide(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("suffix", ["svs", "tif", "png"])
def test_an_empty_file(tmp_path, suffix):
    path = tmp_path / f"empty.{suffix}"
    path.touch()
    assert refusal(path).endswith(": an empty file")


def test_what_is_no_file(tmp_path):
    (tmp_path / "x.svs").mkdir()
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    assert refusal(tmp_path / "x.svs").endswith(": a directory")
    assert "symbolic links" in refusal(tmp_path / "loop.svs")
    assert refusal(tmp_path / "gone.svs").endswith(": no such file")
    assert refusal(tmp_path / "pipe.svs").endswith(": no regular file")
    assert "too long" in refusal(tmp_path / ("x" * 300))
    assert "null" in refusal(tmp_path / "a\0b.svs")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.svs"
    path.write_bytes(b"x")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    assert refusal(path).endswith(": Permission denied")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("part", [0.001, 0.1, 0.6])
def test_a_truncated_slide(tmp_path, part):
    content = demo_slide.demo_slide().read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: int(part * len(content))])
    refusal(path, mpp=0.5)


def test_a_photograph_named_as_a_slide(tmp_path):
    path = tmp_path / "photo.svs"
    Image.new("RGB", (60, 40), (200, 30, 90)).save(path, "JPEG", quality=100)
    slide = slides.open_slide(path, mpp=0.5)
    assert slide.shape == (40, 60)
    np.testing.assert_allclose(
        slide.read_region(0, 0, 40, 60, mpp=0.5).mean(axis=(0, 1)), [200, 30, 90], atol=2
    )
    assert "--config.data.mpp" in refusal(path)


def test_an_image_that_would_fill_the_memory(tmp_path):
    """Only a header: 200 000 × 200 000 px in 57 bytes."""
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert "got 200000 × 200000" in refusal(path, mpp=0.5)


@pytest.mark.parametrize("name", ["größe 切片 №1", "x" * 200, "a!b#c?d%20[1]", "zip:"])
def test_names_of_any_kind(tmp_path, name):
    slide, plain, scene = (tmp_path / f"{name}.{end}" for end in ("svs", "png", "tif"))
    slide.write_bytes(demo_slide.demo_slide().read_bytes())
    Image.new("RGB", (8, 8)).save(plain)
    with rasterio.open(
        scene, "w", driver="GTiff", height=8, width=8, count=3, dtype="uint8", crs="EPSG:32614",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as file:  # fmt: skip
        file.write(np.full((3, 8, 8), 9, np.uint8))
    assert slides.open_slide(slide).shape == (2967, 2220)
    assert slides.open_slide(plain, mpp=1.0).shape == (8, 8)
    assert (slides.open_slide(scene).read_region(0, 0, 8, 8, mpp=1e6) == 9).all()


def test_a_name_that_is_no_unicode(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.tif")
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=8, width=8, count=1, dtype="uint8",
        crs="EPSG:32614", transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 8, 8), np.uint8))
    (tmp_path / "scene.tif").rename(path)
    assert "utf-8" in refusal(path)


@pytest.mark.parametrize(("told", "found"), [("5000.0", "5000"), ("1e-009", "1e-09")])
def test_an_absurd_mpp_of_a_scanner_is_not_believed(tmp_path, told, found):
    content = demo_slide.demo_slide().read_bytes()
    assert content.count(b"MPP = 0.4990") >= 1
    path = tmp_path / "absurd.svs"
    path.write_bytes(content.replace(b"MPP = 0.4990", f"MPP = {told}".encode()))
    message = refusal(path)
    assert f"expected 0.05…10 microns per pixel, got {found} in" in message
    assert "--config.data.mpp" in message
    assert slides.open_slide(path, mpp=0.5).mpp == 0.5
    assert slides.open_slide(path, otherwise_mpp=0.25).mpp == 0.25


@pytest.mark.parametrize("config", [{"bands": (1,)}, {"high": 255.0}])
def test_bands_and_ranges_are_for_rasters_only(tmp_path, config):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    message = refusal(
        tmp_path / "plain.png", mpp=1.0, reading=small_configs.section("data.reading", **config)
    )
    assert "expected a georeferenced raster for config.data.reading.bands, low and high" in message
