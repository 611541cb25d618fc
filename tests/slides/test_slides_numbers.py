"""What the numbers of a file mean: obeyed or refused, and the same in strips and tiles."""

import itertools

import numpy as np
import pytest
import pyvips
import rasterio
import small_configs
import tifffile
from rasterio.enums import ColorInterp

from ssldiff_jax import slides

HEIGHT, WIDTH = 300, 410  # no multiples of a tile
FORMS = {"strips": {}, "tiles": {"tile": (128, 128)}}
RAW = {"metadata": None, "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
UTM = {"crs": "EPSG:32618", "transform": rasterio.Affine(1, 0, 4e5, 0, -1, 4.4e6)}


def noise(count=3, dtype=np.uint8, high=None, seed=0):
    high = np.iinfo(dtype).max if high is None else high
    shape = (HEIGHT, WIDTH, count)[: 3 if count > 1 else 2]
    return np.random.default_rng(seed).integers(0, high, shape, dtype, endpoint=True)


def image_of(path, **config):
    slide = slides.open_slide(
        path, mpp=0.5, reading=small_configs.section("data.reading", **config)
    )
    try:
        return slide.read_region(0, 0, *slide.shape, mpp=0.5)
    finally:
        slide.close()


def refusal(path, **config):
    with pytest.raises(slides.SlideError) as caught:
        image_of(path, **config)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gdal(path, values, names=None, mask=None, **options):
    """A TIFF by GDAL of values (H, W, C)."""
    values = np.atleast_3d(values)
    height, width, count = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count}
    with rasterio.open(path, "w", dtype=values.dtype, **(profile | options)) as file:
        if names:
            file.colorinterp = [ColorInterp[name] for name in names]
        file.write(np.moveaxis(values, -1, 0))
    return path


def turn(image, orientation):
    """How EXIF's numbers are read aloud, quarter by quarter."""
    return {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: np.rot90(x, 2),
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: lambda x: np.rot90(x, 1),
    }[orientation](image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_are_upright(tmp_path, form, orientation):
    image, path = noise(), tmp_path / "turned.tif"
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, image, photometric="rgb", extratags=tags, **RAW, **FORMS[form])
    np.testing.assert_array_equal(image_of(path), turn(image, orientation))
    by_vips = pyvips.Image.new_from_file(str(path), autorotate=True).numpy()
    np.testing.assert_array_equal(image_of(path), by_vips)
    slide = slides.open_slide(path)
    assert slide.mpp == pytest.approx(0.5)
    part = slide.read_region(40, 150, 70, 33, mpp=0.5)
    np.testing.assert_array_equal(part, turn(image, orientation)[40:110, 150:183])


@pytest.mark.parametrize("orientation", [3, 6])
def test_levels_of_a_turned_pyramid_are_turned(tmp_path, orientation):
    image = np.repeat(np.repeat(noise()[:256, :384] // 8 + 100, 2, axis=0), 2, axis=1)
    tags = [(274, "H", 1, orientation, True)]
    with tifffile.TiffWriter(tmp_path / "turned.tif") as file:
        for kind, page in ((0, image), (1, image[::2, ::2])):
            file.write(page, photometric="rgb", tile=(128, 128), subfiletype=kind, extratags=tags,
                       **RAW)  # fmt: skip
    slide = slides.open_slide(tmp_path / "turned.tif")
    assert len(slide._backend.level_shapes) == 2
    found = slide.read_region(0, 0, *slide.shape_at(1.0), mpp=1.0)
    np.testing.assert_array_equal(found, turn(image[::2, ::2], orientation))


def test_a_turned_georeferenced_raster_is_refused(tmp_path):
    path = gdal(tmp_path / "scene.tif", noise(), **UTM)
    with tifffile.TiffFile(path) as file:
        image, keys = file.asarray(), file.pages[0].tags[34735].value
    tags = [(274, "H", 1, 6, True), (34735, "H", len(keys), keys, True)]
    tifffile.imwrite(path, image, photometric="rgb", extratags=tags, metadata=None)
    assert "upright, got page 0 with orientation 6" in refusal(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_in_planes_or_pixels(tmp_path, form, planar, compression):
    image, path = noise(), tmp_path / "image.tif"
    stored = np.moveaxis(image, -1, 0) if planar == "separate" else image
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, compression=compression,
                     predictor=compression is not None, **RAW, **FORMS[form])  # fmt: skip
    np.testing.assert_array_equal(image_of(path), image)


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zstd", "webp", "lzma"])
@pytest.mark.parametrize("form", FORMS)
def test_however_it_is_compressed(tmp_path, compression, form):
    values, path = noise(), tmp_path / "image.tif"
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128} if form == "tiles" else {}
    try:
        gdal(path, values, compress=compression, photometric="RGB", webp_lossless=True, **tiles)
    except (rasterio.errors.RasterioError, ValueError) as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(image_of(path), values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("white", ["MINISBLACK", "MINISWHITE"])
def test_gray_of_few_bits(tmp_path, form, bits, white):
    top = 2**bits - 1
    values, path = noise(1, high=top), tmp_path / "gray.tif"
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128} if form == "tiles" else {}
    gdal(path, values, nbits=bits, photometric=white, **tiles)
    gray = values.astype(int) * 255 // top
    gray = 255 - gray if white == "MINISWHITE" else gray
    np.testing.assert_array_equal(image_of(path), np.repeat(gray[..., None], 3, axis=-1))
    gdal(path, values, nbits=bits, photometric=white, **tiles, **UTM)
    found = slides.open_slide(path).read_region(0, 0, HEIGHT, WIDTH, mpp=1e6)
    np.testing.assert_array_equal(found, np.repeat(gray[..., None], 3, axis=-1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lies", [{}, UTM], ids=["nowhere", "somewhere"])
@pytest.mark.parametrize("bits", [4, 8])
def test_tables_of_colours(tmp_path, form, lies, bits):
    values, path = noise(1, high=2**bits - 1), tmp_path / "classes.tif"
    colours = np.random.default_rng(1).integers(0, 256, (2**bits, 3), np.uint8)
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128} if form == "tiles" else {}
    with rasterio.open(path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=1,
                       dtype="uint8", nbits=bits, **tiles, **lies) as file:  # fmt: skip
        # Before the values, or it lands in a file beside this one.
        file.write_colormap(1, {i: (*c, 255) for i, c in enumerate(colours.tolist())})
        file.write(values, 1)
    np.testing.assert_array_equal(image_of(path), colours[values])
    assert "a table of colours, got 0 and 9" in refusal(path, high=9.0)


def test_what_a_table_calls_transparent_is_white(tmp_path):
    values = noise(1, high=3)
    path = tmp_path / "classes.tif"
    with rasterio.open(path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=1,
                       dtype="uint8", nodata=2, **UTM) as file:  # fmt: skip
        file.write(values, 1)
        file.write_colormap(1, {i: (10 * i, 0, 90, 255) for i in range(4)})
    found = image_of(path)
    assert (found[values == 2] == 255).all()
    assert (found[values == 3] == [30, 0, 90]).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.uint16, 0, 4095), (np.int16, -50, 900), (np.int8, -128, 127), (np.float32, 0, 1),
     (np.uint32, 0, 70_000)],
)  # fmt: skip
def test_deep_or_signed_values_ask_for_their_range(tmp_path, form, count, dtype, low, high):
    unit = noise(count) / 255
    values, path = (low + unit * (high - low)).astype(dtype), tmp_path / "deep.tif"
    kind = "rgb" if count == 3 else "minisblack"
    tifffile.imwrite(path, values, photometric=kind, **RAW, **FORMS[form])
    message = refusal(path)
    assert f"expected bands of 8 bits, got {np.dtype(dtype)} with values" in message
    assert "--config.data.reading.low" in message
    expected = np.floor((values.astype(float) - low) / (high - low) * 255 + 0.5)
    found = image_of(path, low=float(low), high=float(high))
    np.testing.assert_array_equal(
        found, np.broadcast_to(expected.reshape(HEIGHT, WIDTH, -1), found.shape)
    )


@pytest.mark.parametrize("form", FORMS)
def test_twelve_bits_packed_ask_for_their_range(tmp_path, form):
    values = noise(1, np.uint16, high=4095)
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128} if form == "tiles" else {}
    path = gdal(tmp_path / "packed.tif", values, nbits=12, **tiles)
    assert "got uint16 with values" in refusal(path)
    expected = np.floor(values / 4095 * 255 + 0.5)
    np.testing.assert_array_equal(image_of(path, high=4095.0)[..., 1], expected)


@pytest.mark.parametrize("form", FORMS)
def test_sixteen_bits_that_are_used_are_mapped_alike(tmp_path, form):
    values, path = noise(3, np.uint16), tmp_path / "deep.tif"
    tifffile.imwrite(path, values, photometric="rgb", **RAW, **FORMS[form])
    np.testing.assert_array_equal(image_of(path), (values.astype(int) + 128) // 257)


@pytest.mark.parametrize("count", [1, 3])
def test_a_png_of_twelve_bits_in_sixteen_asks_for_its_range(tmp_path, count):
    values, path = noise(count, np.uint16, high=4095), tmp_path / "dapi.png"
    kind = "grey16" if count == 1 else "rgb16"
    pyvips.Image.new_from_array(values).copy(interpretation=kind).write_to_file(str(path))
    assert "16 bits of which 65535 is white, got values" in refusal(path)
    assert "…4095: pass --config.data.reading.low" in refusal(path)
    expected = np.floor(values.reshape(HEIGHT, WIDTH, -1) / 4095 * 255 + 0.5)
    found = image_of(path, high=4095.0)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


@pytest.mark.parametrize("count", [1, 3])
def test_a_png_that_uses_sixteen_bits_is_a_picture(tmp_path, count):
    values, path = noise(count, np.uint16), tmp_path / "deep.png"
    kind = "grey16" if count == 1 else "rgb16"
    pyvips.Image.new_from_array(values).copy(interpretation=kind).write_to_file(str(path))
    expected = values.reshape(HEIGHT, WIDTH, -1) / 257
    np.testing.assert_allclose(
        image_of(path), np.broadcast_to(expected, (HEIGHT, WIDTH, 3)), atol=1
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
def test_a_fourth_sample_is_transparency_only_where_it_is_called_so(tmp_path, form, kind):
    image, alpha = noise(), noise(1, seed=1)
    if kind == "assocalpha":
        image = (image * (alpha[..., None] / 255)).astype(np.uint8)
    path = tmp_path / "four.tif"
    tifffile.imwrite(path, np.dstack([image, alpha]), photometric="rgb", extrasamples=[kind], **RAW,
                     **FORMS[form])  # fmt: skip
    part = alpha[..., None] / 255
    expected = {
        "unassalpha": image * part + 255 * (1 - part),
        "assocalpha": image + 255 * (1 - part),
        "unspecified": image,
    }[kind]
    np.testing.assert_allclose(image_of(path), expected, atol=2)


@pytest.mark.parametrize("form", FORMS)
def test_gray_with_transparency(tmp_path, form):
    gray, alpha = noise(1), noise(1, seed=1)
    options = {"photometric": "minisblack", "planarconfig": "contig"} | RAW | FORMS[form]
    stored = np.dstack([gray, alpha])
    tifffile.imwrite(tmp_path / "la.tif", stored, extrasamples=["unassalpha"], **options)
    expected = gray * (alpha / 255) + 255 - alpha
    np.testing.assert_allclose(image_of(tmp_path / "la.tif")[..., 0], expected, atol=1)


NAMES = list(itertools.permutations(["red", "green", "blue"]))


@pytest.mark.parametrize("names", NAMES, ids="-".join)
@pytest.mark.parametrize("more", [(), ("undefined",)])
def test_colours_are_found_by_their_names(tmp_path, names, more):
    values = noise(3 + len(more))
    options = UTM | {"photometric": "MINISBLACK"}
    path = gdal(tmp_path / "scene.tif", values, (*names, *more), **options)
    expected = values[..., [names.index(colour) for colour in ("red", "green", "blue")]]
    np.testing.assert_array_equal(image_of(path), expected)
    np.testing.assert_array_equal(image_of(path, bands=(1, 2, 3)), values[..., :3])


def test_colours_are_found_by_their_descriptions(tmp_path, caplog):
    values = noise(4)
    path = gdal(tmp_path / "planet.tif", values, **UTM)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ["Blue", "green", "RED", "nir"]
    np.testing.assert_array_equal(image_of(path), values[..., [2, 1, 0]])
    path = gdal(tmp_path / "both.tif", values[..., :3], photometric="RGB", **UTM)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ["blue", "green", "red"]
    np.testing.assert_array_equal(image_of(path), values[..., [2, 1, 0]])
    assert "both.tif: bands [3, 2, 1] are described as red" in caplog.text


def test_names_that_contradict_the_order_are_refused(tmp_path):
    names = ("blue", "green", "undefined")
    path = gdal(tmp_path / "scene.tif", noise(), names, photometric="MINISBLACK", **UTM)
    assert "called red, green and blue" in refusal(path)
    assert "got 1 is blue: pass --config.data.reading.bands" in refusal(path)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("form", FORMS)
def test_channels_that_are_no_colours_are_to_be_chosen(tmp_path, count, form):
    values, path = noise(count), tmp_path / "stains.tif"
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", **RAW,
                     **FORMS[form])  # fmt: skip
    assert f"got {count} channels" in refusal(path)
    chosen = (2, 1, 2)
    expected = values[..., [band - 1 for band in chosen]]
    np.testing.assert_array_equal(image_of(path, bands=chosen), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_alpha_band_that_is_a_mask_is_white(tmp_path, dtype, caplog):
    top = np.iinfo(dtype).max
    values, mask = noise(3, dtype).clip(1), np.zeros((HEIGHT, WIDTH, 1), dtype)
    mask[50:200, 30:] = top
    values[mask[..., 0] == 0] = 0
    path = gdal(tmp_path / "scene.tif", np.dstack([values, mask]), photometric="RGB", alpha="YES",
                **UTM)  # fmt: skip
    found = image_of(path, **({} if dtype == np.uint8 else {"high": float(top)}))
    assert (found[mask[..., 0] == 0] == 255).all()
    expected = np.floor(values / top * 255 + 0.5)
    np.testing.assert_array_equal(found[50:200, 30:], expected[50:200, 30:])
    assert "band 4, called alpha, is a mask" in caplog.text


@pytest.mark.parametrize("lies", [{}, UTM], ids=["nowhere", "somewhere"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000(tmp_path, lies, dtype):
    values = noise(3, dtype, high=255 if dtype == np.uint8 else 4000)
    path = gdal(tmp_path / "band.jp2", values, driver="JP2OpenJPEG", QUALITY="100",
                REVERSIBLE="YES", BLOCKXSIZE="128", BLOCKYSIZE="128", **lies)  # fmt: skip
    if dtype == np.uint8:
        np.testing.assert_array_equal(image_of(path), values)
        return
    assert "got uint16 with values" in refusal(path)
    expected = np.floor(values / 4000 * 255 + 0.5)
    np.testing.assert_array_equal(image_of(path, high=4000.0), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["cielab", "icclab", "cfa"])
def test_numbers_that_are_no_colours_yet_are_refused(tmp_path, form, kind):
    """Of hopper.Lab.tif (of Pillow) GDAL's colours are 13 of 255 from the picture it is of; a
    camera's mosaic was gray."""
    path = tmp_path / "numbers.tif"
    values = noise(1 if kind == "cfa" else 3)
    tifffile.imwrite(path, values, photometric=kind, **RAW, **FORMS[form])
    assert "expected gray, a table of colours, RGB, CMYK or YCbCr" in refusal(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_either_order_of_bytes_in_small_and_big_files(tmp_path, form, bigtiff, byteorder):
    path, values = tmp_path / "order.tif", noise()
    options = {"bigtiff": bigtiff, "byteorder": byteorder}
    tifffile.imwrite(path, values, photometric="rgb", **options, **RAW, **FORMS[form])
    np.testing.assert_array_equal(image_of(path), values)
