import subprocess
import sys

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from ssldiff_jax import slides
from ssldiff_jax.slides import ground, halving, multiband, optional, pyramid, reading, stac, written
from ssldiff_jax.slides.protocol import SlideError

NAMES = {
    1: ("height",),
    2: ("infrared", "red"),
    4: ("red", "green", "blue", "nir"),
    8: ("nir", "blue", "green", "red", "swir16", "swir22", "b 7", "β < 8 & more"),
}
PLACE = ground.Georeference("EPSG:32614", (2.0, 0.0, 485_000.0, 0.0, -2.0, 5_209_000.0))
LOSSLESS = ("tif", "cog.tif", "ome.zarr")


def bands_of(count=4, bits=16, **more):
    values = {"low": (), "high": (), "shown": (), "encoded": ()} | more
    return multiband.MultibandConfig(names=NAMES[count], bits=bits, **values)


def noise(height, width, bands, seed=0):
    """Values from 1 up, and a corner without data."""
    rng = np.random.default_rng(seed)
    shape = (height, width, bands.count)
    pixels = rng.integers(1, bands.top, shape, bands.dtype, endpoint=True)
    pixels[: height // 3, : width // 2 + 1] = 0
    return pixels


def halved(pixels):
    """Means of 2 × 2 px with data, one after the other; halves up; the last of an odd side alone,
    as GDAL has it."""
    height, width = (-(-side // 2) for side in pixels.shape[:2])
    out = np.zeros((height, width, pixels.shape[2]), pixels.dtype)
    for y in range(height):
        for x in range(width):
            block = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, pixels.shape[2])
            block = block[block.any(axis=1)].astype(int)
            if len(block):
                out[y, x] = (2 * block.sum(axis=0) + len(block)) // (2 * len(block))
    return out


def require_writer(name):
    if name in optional.WRITERS:
        pytest.importorskip(optional.WRITERS[name][0])


@pytest.mark.parametrize("place", [None, PLACE], ids=["nowhere", "placed"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("count", NAMES)
@pytest.mark.parametrize("name", LOSSLESS)
def test_bands_read_back(tmp_path, name, count, bits, place):
    require_writer(name)
    bands = bands_of(count, bits)
    pixels, path = noise(300, 301, bands), tmp_path / f"out.{name}"
    # Of a TIFF that lies nowhere a scale of metres is not believed.
    mpp = 2e6 if place else 0.5
    pyramid.FORMATS[name](path, pixels, pyramid.Scale(mpp, georeference=place, bands=bands))
    config = reading.ReadingConfig((), 0.0, 0.0, "stored", bands)
    slide = slides.open_slide(path, reading=config)
    assert slide.mpp == pytest.approx(mpp, rel=1e-3)
    found = slide.read_region(0, 0, 300, 301, mpp=slide.mpp)
    np.testing.assert_array_equal(found, pixels)
    # By their names in another order.
    if count > 1:
        turned = multiband.MultibandConfig(bands.names[::-1], (), (), bits, (), ())
        config = reading.ReadingConfig((), 0.0, 0.0, "stored", turned)
        slide = slides.open_slide(path, reading=config)
        found = slide.read_region(0, 0, 300, 301, mpp=slide.mpp)
        np.testing.assert_array_equal(found, pixels[..., ::-1])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("count", NAMES)
@pytest.mark.parametrize(("name", "tile"), [("tif", 256), ("cog.tif", 512)])
def test_gdal_knows_what_the_bands_are(tmp_path, name, tile, count, bits):
    bands = bands_of(count, bits)
    pixels, path = noise(600, 700, bands), tmp_path / f"out.{name}"
    pyramid.FORMATS[name](path, pixels, pyramid.Scale(2e6, georeference=PLACE, bands=bands))
    with rasterio.open(path) as file:
        assert file.descriptions == bands.names
        assert set(file.dtypes) == {f"uint{bits}"}
        assert set(file.nodatavals) == {0}
        assert (set(file.scales), set(file.offsets)) == ({1}, {0})
        assert file.crs.to_epsg() == 32614
        assert tuple(file.transform)[:6] == PLACE.transform
        assert file.block_shapes[0] == (tile, tile)
        assert file.compression.name == "deflate"
        assert file.interleaving.name == ("pixel" if count > 1 else "band")
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), pixels)
        kinds = [kind.name for kind in file.colorinterp]
        # GDAL's mask, of all bands: where it sees data.
        np.testing.assert_array_equal(file.dataset_mask() > 0, pixels.any(axis=-1))
        overviews = file.overviews(1)
    colours = ("red", "green", "blue")
    if set(colours) <= set(bands.names):
        assert kinds == [n if n in colours else "undefined" for n in bands.names]
    else:
        assert kinds == ["gray", *["undefined"] * (count - 1)]
    assert overviews == {256: [2, 4], 512: [2]}[tile]
    with rasterio.open(path, overview_level=0) as file:
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), halved(pixels))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.pages[0].asarray().reshape(pixels.shape), pixels)
        assert file.pages[0].nodata == 0
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    assert [p.name for p in tmp_path.iterdir()] == [f"out.{name}"]


@pytest.mark.parametrize("name", ["tif", "cog.tif"])
def test_scale_and_offset_give_values_back(tmp_path, name):
    bands = bands_of(2, 8, low=(-0.5, 100.0), high=(0.5, 3000.0))
    pixels, path = noise(50, 60, bands), tmp_path / f"out.{name}"
    pyramid.FORMATS[name](path, pixels, pyramid.Scale(2e6, georeference=PLACE, bands=bands))
    with rasterio.open(path) as file:
        scales, offsets = np.array(file.scales), np.array(file.offsets)
    np.testing.assert_allclose(pixels * scales + offsets, bands.to_values(pixels), rtol=1e-6)
    np.testing.assert_array_equal(pyramid.read_bands(path), pixels)
    # What is read is what is stored: records have the range already.
    config = reading.ReadingConfig((), 0.0, 0.0, "stored", bands_of(2, 8))
    slide = slides.open_slide(path, reading=config)
    np.testing.assert_array_equal(slide.read_region(0, 0, 50, 60, mpp=slide.mpp), pixels)


def test_a_cog_without_a_place_has_its_scale(tmp_path):
    bands = bands_of()
    pyramid.write_cog(tmp_path / "out.tif", noise(9, 9, bands), pyramid.Scale(0.25, bands=bands))
    config = reading.ReadingConfig((), 0.0, 0.0, "stored", bands)
    assert slides.open_slide(tmp_path / "out.tif", reading=config).mpp == pytest.approx(0.25)
    assert cog_validate(tmp_path / "out.tif", quiet=True)[0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("count", NAMES)
def test_ome_tiff_has_a_channel_for_each_band(tmp_path, count, bits):
    bands = bands_of(count, bits)
    pixels, path = noise(600, 700, bands), tmp_path / "out.ome.tif"
    pyramid.write_ome_tiff(path, pixels, pyramid.Scale(0.5, bands=bands))
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        (series,) = file.series
        # tifffile leaves out an axis of one.
        assert series.axes == ("CYX" if count > 1 else "YX")
        expected = np.moveaxis(pixels, -1, 0)
        np.testing.assert_array_equal(series.asarray().reshape(expected.shape), expected)
        assert [level.shape[-2:] for level in series.levels] == [(600, 700), (300, 350), (150, 175)]
        assert file.pages[0].compression.name == "ADOBE_DEFLATE"
        described = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    channels = described["Channel"]
    channels = channels if isinstance(channels, list) else [channels]
    assert tuple(channel["Name"] for channel in channels) == bands.names
    assert described["Type"] == f"uint{bits}"
    assert described["PhysicalSizeX"] == 0.5


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("bits", [8, 16])
def test_ome_zarr_has_a_channel_for_each_band(tmp_path, version, bits):
    zarr = pytest.importorskip("zarr", minversion="3.1")
    bands = bands_of(8, bits)
    pixels, path = noise(700, 521, bands), tmp_path / "out.ome.zarr"
    pyramid.write_ome_zarr(path, pixels, pyramid.Scale(0.5, ngff=version, bands=bands))
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs.asdict()
    attributes = attributes["ome"] if version == "0.5" else attributes
    np.testing.assert_array_equal(group["0"][:], np.moveaxis(pixels, -1, 0))
    # Half of an odd side is rounded down here.
    expected = halved(pixels)[:, :260]
    np.testing.assert_array_equal(group["1"][:], np.moveaxis(expected, -1, 0))
    channels = attributes["omero"]["channels"]
    assert tuple(c["label"] for c in channels) == bands.names
    assert {c["window"]["max"] for c in channels} == {bands.top}
    shown = {c["label"]: c["color"] for c in channels if c["active"]}
    assert shown == {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}


def test_one_shown_band_is_grey(tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3.1")
    bands = bands_of(4, 8, shown=("nir",))
    pixels = noise(30, 40, bands)
    scale = pyramid.Scale(0.5, bands=bands)
    pyramid.write_ome_zarr(tmp_path / "out.ome.zarr", pixels, scale)
    attributes = zarr.open_group(tmp_path / "out.ome.zarr", mode="r").attrs.asdict()
    channels = attributes["ome"]["omero"]["channels"]
    assert [(c["label"], c["color"]) for c in channels if c["active"]] == [("nir", "FFFFFF")]
    pyramid.write_png(tmp_path / "out.png", pixels, scale)
    found = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(found, pixels[..., 3:].repeat(3, axis=-1))


@pytest.mark.parametrize("name", ["png", "dzi", "dcm"])
def test_pictures_are_of_the_bands_that_are_shown(tmp_path, name):
    require_writer(name)
    bands = bands_of(4, 16, shown=("nir", "red", "green"))
    pixels = noise(300, 270, bands)
    expected = np.floor(pixels[..., [3, 0, 1]] / 257 + 0.5).astype(np.uint8)
    folders = [tmp_path / "all", tmp_path / "three"]
    for folder, image, scale in (
        (folders[0], pixels, pyramid.Scale(0.5, bands=bands)),
        (folders[1], expected, pyramid.Scale(0.5)),
    ):
        folder.mkdir()
        pyramid.FORMATS[name](folder / f"out.{name}", image, scale)
    files = [
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in folders
    ]
    assert files[0] == files[1]


def test_every_value_of_16_bits_is_shown_rounded(tmp_path):
    bands = bands_of(1)
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    pyramid.write_png(tmp_path / "out.png", pixels, pyramid.Scale(1.0, bands=bands))
    found = pyramid.read_image(tmp_path / "out.png")
    np.testing.assert_array_equal(found, bands.shown_view(pixels))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", sorted(pyramid.FORMATS))
def test_files_are_the_same_from_memory_and_from_a_file(tmp_path, name, bits, monkeypatch):
    require_writer(name)
    monkeypatch.setattr(written, "STRIP", 99)  # several, the last one shorter
    bands = bands_of(4, bits)
    pixels = noise(550, 333, bands)
    pixels.tofile(tmp_path / "pixels.raw")
    raw = pyramid.RawImage(tmp_path / "pixels.raw", 550, 333, 4, bands.dtype)
    found = []
    for folder, image in ((tmp_path / "a", pixels), (tmp_path / "b", raw)):
        folder.mkdir()
        pyramid.FORMATS[name](folder / f"out.{name}", image, pyramid.Scale(0.5, bands=bands))
        files = (p for p in folder.rglob("*") if p.is_file())
        found.append({p.relative_to(folder): p.read_bytes() for p in files})
    assert found[0] == found[1]


_WRITE_LARGE = """
import pathlib, sys
import numpy as np
from ssldiff_jax.core import memory
from ssldiff_jax.slides import multiband, pyramid

folder = pathlib.Path(sys.argv[1])
bands = multiband.MultibandConfig(("a", "b", "c", "d"), (), (), 16, (), ())
pixels = pyramid.RawImage(folder / "pixels.raw", 4096, 8192, 4, bands.dtype)
before = memory.rss_mb()
pyramid.FORMATS[sys.argv[2]](folder / "out", pixels, pyramid.Scale(1.0, bands=bands))
print(memory.peak_rss_mb() - before)
"""


@pytest.mark.parametrize("name", ["ome.tif", "ome.zarr"])
def test_a_large_file_of_bands_is_never_held_whole(tmp_path, name):
    require_writer(name)
    with open(tmp_path / "pixels.raw", "wb") as raw:
        raw.truncate(4 * 2 * 4096 * 8192)  # 268 MB, of zeros that no disk holds
    command = [sys.executable, "-c", _WRITE_LARGE, str(tmp_path), name]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(told.stdout) < 200


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(5, 7), (1, 9), (66, 3), (2, 2)])
def test_levels_of_bands_are_means_of_data(shape, bits):
    bands = bands_of(2, bits)
    pixels = noise(*shape, bands)
    pixels[-1, -1] = bands.top
    found = halving.bands_halved(pixels, shape)
    assert found.dtype == bands.dtype
    rows, columns = (max(side // 2, 1) for side in shape)
    np.testing.assert_array_equal(found, halved(pixels)[:rows, :columns])


def test_other_pixels_than_the_bands_say_are_refused(tmp_path):
    bands = bands_of()
    raw = pyramid.RawImage(tmp_path / "pixels.raw", 9, 9, 3, bands.dtype)
    for pixels in (np.zeros((9, 9, 3), np.uint16), np.zeros((9, 9, 4), np.uint8), raw):
        for name in ("tif", "ome.tif", "cog.tif", "png"):
            with pytest.raises(ValueError, match=r"of shape \(H, W, 4\) and uint16, got"):
                pyramid.FORMATS[name](tmp_path / f"o.{name}", pixels, pyramid.Scale(1, bands=bands))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_names_the_file(tmp_path):
    bands = bands_of()
    scale = pyramid.Scale(1.0, bands=bands)
    with pytest.raises(OSError, match=r"expected to write .*absent/out\.tif, got"):
        pyramid.write_bands(tmp_path / "absent" / "out.tif", noise(9, 9, bands), scale)


def test_bands_that_cannot_be_read_are_one_line(tmp_path):
    bands = bands_of()
    path = tmp_path / "out.tif"
    pyramid.write_bands(path, noise(300, 300, bands), pyramid.Scale(1.0, bands=bands))
    data = path.read_bytes()
    for content in (data[: len(data) // 2], data[:100], b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(SlideError) as error:
            pyramid.read_bands(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(SlideError, match=r"absent\.tif"):
        pyramid.read_bands(tmp_path / "absent.tif")
    with rasterio.open(
        path, "w", driver="GTiff", height=3, width=3, count=1, dtype="float32"
    ) as file:
        file.write(np.ones((1, 3, 3), np.float32))
    with pytest.raises(SlideError, match="expected bands of 8 or 16 bits, got float32"):
        pyramid.read_bands(path)


def test_items_list_the_bands():
    bands = multiband.MultibandConfig(
        ("Red", "infrared", "height"), (0.0, 0.0, -10.0), (1.0, 2.0, 500.0), 16, (), ()
    )
    item = stac.item("a", "a.cog.tif", (30, 40), PLACE, {}, bands=bands)
    assert item["assets"]["image"]["roles"] == ["data"]
    assert item["assets"]["image"]["bands"] == [
        {
            "name": "Red", "data_type": "uint16", "nodata": 0, "eo:common_name": "red",
            "raster:scale": 1 / 65535, "raster:offset": 0.0,
        },
        {
            "name": "infrared", "data_type": "uint16", "nodata": 0, "eo:common_name": "nir",
            "raster:scale": 2 / 65535, "raster:offset": 0.0,
        },
        {
            "name": "height", "data_type": "uint16", "nodata": 0,
            "raster:scale": 510 / 65535, "raster:offset": -10.0,
        },
    ]  # fmt: skip
    used = {url.split("/")[3] for url in item["stac_extensions"]}
    assert used == {"projection", "processing", "eo", "raster"}
    plain = stac.item("a", "a.cog.tif", (30, 40), PLACE, {}, bands=bands_of(1, 8))
    assert {url.split("/")[3] for url in plain["stac_extensions"]} == {"projection", "processing"}
