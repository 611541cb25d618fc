"""OME-Zarr as a slide: written by zarr and by ome-zarr, read by `open_slide`."""

import json
import shutil

import fsspec
import numpy as np
import pytest

from ssldiff_jax.data import slide_source
from ssldiff_jax.slides import content, find_slides, multiband, open_slide, remote
from ssldiff_jax.slides import reading as reading_lib
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides.protocol import SlideError

zarr = pytest.importorskip("zarr", minversion="3.1")

PIXELS = np.random.default_rng(0).integers(0, 255, (300, 401, 3), np.uint8)
HALF = PIXELS[:, :400].reshape(150, 2, 200, 2, 3).mean((1, 3)).round().astype(np.uint8)
ZARR_OF = {"0.4": 2, "0.5": 3}


def axes(names="cyx", unit="micrometer"):
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": n, "type": kinds.get(n, "space")} for n in names]
    return [a | {"unit": unit} if unit and a["type"] == "space" else a for a in axes]


def image(names="cyx", unit="micrometer", mpp=0.5, levels=2, **more):
    scale = lambda n: [mpp * 2**n if name in "zyx" else 1.0 for name in names]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale(n)}]}
        for n in range(levels)
    ]
    return {"axes": axes(names, unit), "datasets": datasets} | more


def write(path, version="0.5", *, names="cyx", levels=(PIXELS, HALF), metadata=None, **more):
    """A store as the specification says, of (H, W, C) levels."""
    zarr_format = ZARR_OF[version]
    metadata = metadata or image(names, levels=len(levels))
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [metadata]} | more}
    else:
        attributes = {"multiscales": [metadata | {"version": "0.4"}]} | more
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes=attributes)
    for number, pixels in enumerate(levels):
        shape = {"t": 1, "z": 1, "c": pixels.shape[2], "y": pixels.shape[0], "x": pixels.shape[1]}
        chunks = {"t": 1, "z": 1, "c": 1, "y": 64, "x": 64}
        kept = [axis for axis in ("y", "x", "c") if axis in names]
        values = pixels if "c" in names else pixels[..., 0]
        ordered = values.transpose([kept.index(n) for n in names if n in kept])
        array = group.create_array(
            str(number), shape=tuple(shape[n] for n in names), dtype=pixels.dtype,
            chunks=tuple(chunks[n] for n in names),
            chunk_key_encoding={"name": "default" if zarr_format == 3 else "v2", "separator": "/"},
        )  # fmt: skip
        array[:] = ordered.reshape(array.shape)
    return path


@pytest.mark.parametrize("version", ZARR_OF)
@pytest.mark.parametrize("names", ["cyx", "tczyx", "yxc"])
def test_both_versions_and_every_order_of_axes_read_back(tmp_path, version, names):
    slide = open_slide(write(tmp_path / "a.ome.zarr", version, names=names))
    assert (slide.mpp, slide.shape) == (0.5, (300, 401))
    np.testing.assert_array_equal(slide.read_region(0, 0, 300, 401, mpp=0.5), PIXELS)
    part = slide.read_region(61, 120, 77, 100, mpp=0.5)
    np.testing.assert_array_equal(part, PIXELS[61:138, 120:220])
    # The stored level, not the fine one made smaller, and white beyond the border.
    np.testing.assert_array_equal(slide.read_region(0, 0, 150, 200, mpp=1.0), HALF)
    assert (slide.read_region(299, 400, 3, 3, mpp=0.5)[1:, 1:] == 255).all()


def test_one_channel_is_grey(tmp_path):
    slide = open_slide(write(tmp_path / "a.zarr", names="yx"))
    expected = PIXELS[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(slide.read_region(0, 0, 300, 401, mpp=0.5), expected)


def test_ome_zarr_writes_what_is_read(tmp_path):
    pytest.importorskip("ome_zarr")
    from ome_zarr import format as ome_format
    from ome_zarr import writer

    for version in ("0.4", "0.5"):
        path = tmp_path / f"{version}.ome.zarr"
        fmt = ome_format.format_from_version(version)
        group = zarr.open_group(str(path), mode="w", zarr_format=fmt.zarr_format)
        transforms = [[{"type": "scale", "scale": [1, 250.0, 250.0]}]]
        writer.write_multiscale(
            [PIXELS.transpose(2, 0, 1)], group, fmt=fmt, axes=axes(unit="nanometer"),
            coordinate_transformations=transforms,
        )  # fmt: skip
        slide = open_slide(path)
        assert slide.mpp == 0.25
        np.testing.assert_array_equal(slide.read_region(0, 0, 300, 401, mpp=0.25), PIXELS)


@pytest.mark.parametrize(
    ("unit", "stored", "mpp"),
    [("nanometer", 250, 0.25), ("millimeter", 5e-4, 0.5), ("micrometre", 2, 2), ("meter", 10, 1e7),
     ("angstrom", 5000, 0.5), ("µm", 0.3, 0.3), ("inch", 1, 25400)],
)  # fmt: skip
def test_units_become_microns(tmp_path, unit, stored, mpp):
    metadata = image(unit=unit, mpp=stored, levels=1)
    slide = open_slide(write(tmp_path / "a.zarr", levels=[PIXELS], metadata=metadata))
    assert slide.mpp == pytest.approx(mpp, rel=1e-12)


def test_the_scale_of_the_whole_image_multiplies_that_of_a_level(tmp_path):
    whole = [
        {"type": "scale", "scale": [1, 3, 3]},
        {"type": "translation", "translation": [0, 1, 1]},
    ]
    metadata = image(mpp=0.1, levels=1, coordinateTransformations=whole)
    slide = open_slide(write(tmp_path / "a.zarr", levels=[PIXELS], metadata=metadata))
    assert slide.mpp == pytest.approx(0.3)


def without_scale(metadata):
    for dataset in metadata["datasets"]:
        dataset.pop("coordinateTransformations")
    return metadata


REFUSED = {
    "no scale": (without_scale(image()), "pass --config.data.mpp="),
    "no unit": (image(unit=None), "got 0.5 without a unit"),
    "no length": (image(unit="second"), "in 'second'"),
    "oblong": (
        image() | {"coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2]}]},
        "expected square pixels",
    ),
    "a scale of fewer axes": (
        image() | {"coordinateTransformations": [{"type": "scale", "scale": [2, 2]}]},
        "expected a scale of 3 numbers, for c, y, x, got [2, 2]",
    ),
    "a scale of more axes": (
        image() | {"coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1, 2, 2]}]},
        "expected a scale of 3 numbers, for c, y, x, got [1, 1, 1, 2, 2]",
    ),
    "no axes": (image() | {"axes": ["c", "y", "x"]}, "multiscales metadata of NGFF"),
    "no level": (image() | {"datasets": []}, "expected at least one level"),
    "other axes": (image(names="cyw"), "expected axes y and x"),
    "no array": (
        image() | {"datasets": [image()["datasets"][0] | {"path": "9"}]}, "9"),
    "other version": (image() | {"version": "0.6"}, "got version 0.6"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_metadata_without_sense_is_one_line_that_names_the_store(tmp_path, name):
    metadata, words = REFUSED[name]
    version = "0.4" if name == "no axes" else "0.5"
    path = write(tmp_path / "a.zarr", version, metadata=metadata)
    if name == "other version":
        document = json.loads((path / "zarr.json").read_text())
        document["attributes"]["ome"]["version"] = "0.6"
        (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SlideError) as refused:
        open_slide(path)
    message = str(refused.value)
    assert words in message
    assert str(path) in message
    assert "\n" not in message


def test_a_scale_that_is_passed_wins(tmp_path):
    path = write(tmp_path / "a.zarr", metadata=without_scale(image()))
    assert open_slide(path, mpp=0.7).mpp == 0.7
    assert open_slide(path, otherwise_mpp=0.6).mpp == 0.6


def test_channels_that_are_no_colours_are_chosen(tmp_path):
    colours = [{"color": c} for c in ("0000FF", "00FF00", "FF0000")]
    path = write(tmp_path / "a.zarr", omero={"channels": colours})
    with pytest.raises(SlideError, match=r"got 3 channels of colours 0000FF, 00FF00, FF0000"):
        open_slide(path)
    chosen = reading_lib.ReadingConfig(
        bands=(3, 2, 1), low=0, high=0, colour="stored", multiband=multiband.NO_BANDS
    )
    pixels = open_slide(path, reading=chosen).read_region(0, 0, 300, 401, mpp=0.5)
    np.testing.assert_array_equal(pixels, PIXELS[..., ::-1])
    many = np.concatenate([PIXELS, PIXELS[..., :2]], axis=2)
    path = write(tmp_path / "b.zarr", levels=[many])
    with pytest.raises(SlideError, match="got 5 channels"):
        open_slide(path)
    one = reading_lib.ReadingConfig(
        bands=(5,), low=0, high=0, colour="stored", multiband=multiband.NO_BANDS
    )
    pixels = open_slide(path, reading=one).read_region(3, 5, 100, 90, mpp=0.5)
    np.testing.assert_array_equal(pixels, PIXELS[3:103, 5:95, 1:2].repeat(3, axis=2))


def test_sixteen_bits_need_a_range(tmp_path):
    deep = PIXELS.astype(np.uint16) * 16
    path = write(tmp_path / "a.zarr", levels=[deep])
    with pytest.raises(SlideError, match=r"--config\.data\.reading\.low"):
        open_slide(path)
    scaled = reading_lib.ReadingConfig(
        bands=(), low=0, high=4080, colour="stored", multiband=multiband.NO_BANDS
    )
    pixels = open_slide(path, reading=scaled).read_region(0, 0, 300, 401, mpp=0.5)
    np.testing.assert_array_equal(pixels, PIXELS)


def bioformats(path, version, count):
    key = {"bioformats2raw.layout": 3}
    attributes = {"ome": key | {"version": "0.5"}} if version == "0.5" else key
    zarr.open_group(path, mode="w", zarr_format=ZARR_OF[version], attributes=attributes)
    for number in range(count):
        write(path / str(number), version, levels=[np.roll(PIXELS, number)])
    return path


@pytest.mark.parametrize("version", ZARR_OF)
def test_a_store_of_bio_formats(tmp_path, version):
    slide = open_slide(bioformats(tmp_path / "one.zarr", version, 1))
    np.testing.assert_array_equal(slide.read_region(0, 0, 300, 401, mpp=0.5), PIXELS)
    two = bioformats(tmp_path / "two.zarr", version, 2)
    with pytest.raises(SlideError, match=r"got 2 \(0, 1\).*name one of them, .*two\.zarr/0"):
        open_slide(two)
    pixels = open_slide(two / "1").read_region(0, 0, 300, 401, mpp=0.5)
    np.testing.assert_array_equal(pixels, np.roll(PIXELS, 1))
    assert find_slides(f"{two}/*") == [two / "0", two / "1"]
    assert [remote.name_of(str(two / n)) for n in "01"] == ["two_0.zarr", "two_1.zarr"]
    (two / "OME").mkdir()
    metadata = {"series": ["1"]}
    attributes = {"ome": metadata} if version == "0.5" else metadata
    zarr.open_group(two / "OME", mode="w", zarr_format=ZARR_OF[version], attributes=attributes)
    pixels = open_slide(two).read_region(0, 0, 300, 401, mpp=0.5)
    np.testing.assert_array_equal(pixels, np.roll(PIXELS, 1))


@pytest.mark.parametrize("version", ZARR_OF)
def test_find_slides_takes_stores_for_files(tmp_path, version):
    a, b = write(tmp_path / "a.ome.zarr", version), write(tmp_path / "b.zarr", version)
    (tmp_path / "c.txt").touch()
    for pattern in (f"{tmp_path}", f"{tmp_path}/*.zarr", f"{a},{b}", f"{tmp_path}/**"):
        expected = [a, b] if not pattern.endswith("**") else [a, b, tmp_path / "c.txt"]
        assert find_slides(pattern) == expected
    unnamed = write(tmp_path / "plain", version)
    assert find_slides(str(unnamed)) == [unnamed]
    assert open_slide(unnamed).shape == (300, 401)


def test_what_is_no_image_is_one_line(tmp_path):
    empty, table, array = (tmp_path / f"{name}.zarr" for name in ("empty", "table", "array"))
    empty.mkdir()
    zarr.open_group(table, mode="w", attributes={"encoding-type": "anndata"})
    zarr.create_array(array, shape=(4, 4), dtype="u1")
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w", attributes={"ome": {"version": "0.5", "plate": {}}})
    words = {empty: "no group is there", table: "anndata, no image", array: "image, got",
             plate: "X.zarr/A/1/0"}  # fmt: skip
    for path, word in words.items():
        with pytest.raises(SlideError) as refused:
            open_slide(path)
        assert word in str(refused.value)
        assert str(path) in str(refused.value)


def chunk_of(path, version):
    """Of the coarse level's second row of chunks: no corner, nor the middle of the fine one."""
    return path / ("1/c/0/1/1" if version == "0.5" else "1/0/1/1")


@pytest.mark.parametrize("version", ZARR_OF)
@pytest.mark.parametrize("compressors", ["auto", None])
def test_a_truncated_chunk_is_a_slide_error_when_it_is_read(tmp_path, version, compressors):
    path = write(tmp_path / "a.zarr", version)
    if compressors is None:
        group = zarr.open_group(path, mode="r+")
        group.create_array(
            "1", data=HALF.transpose(2, 0, 1), chunks=(1, 64, 64), compressors=None, overwrite=True,
            chunk_key_encoding={"name": "v2" if version == "0.4" else "default", "separator": "/"},
        )  # fmt: skip
    chunk = chunk_of(path, version)
    chunk.write_bytes(chunk.read_bytes()[:-100])
    slide = open_slide(path)
    np.testing.assert_array_equal(slide.read_region(0, 0, 300, 401, mpp=0.5), PIXELS)
    with pytest.raises(SlideError, match="readable OME-Zarr") as refused:
        slide.read_region(0, 0, 150, 200, mpp=1.0)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("version", ZARR_OF)
def test_the_fingerprint_is_that_of_the_content(tmp_path, version):
    path = write(tmp_path / "a.zarr", version)
    before = slide_source.fingerprint(str(path))
    assert before[:2] == ["a.zarr", content.size(path)]
    shutil.copytree(path, tmp_path / "copy" / "a.zarr")
    assert slide_source.fingerprint(str(tmp_path / "copy" / "a.zarr")) == before
    chunk = chunk_of(path, version)
    data = chunk.read_bytes()
    chunk.write_bytes(data[:50] + bytes([data[50] ^ 255]) + data[51:])
    assert slide_source.fingerprint(str(path)) != before
    chunk.write_bytes(data)
    assert slide_source.fingerprint(str(path)) == before
    (path / "labels").mkdir()
    (path / "labels" / "zarr.json").write_text("{}")
    assert slide_source.fingerprint(str(path)) != before


def test_copies_in_other_chunks_are_the_same_slide(tmp_path):
    one, other = (open_slide(write(tmp_path / f"{v}.zarr", v)) for v in ZARR_OF)
    assert slide_lib.identity(one) == slide_lib.identity(other)
    changed = PIXELS.copy()
    changed[0, 0] ^= 1
    another = open_slide(write(tmp_path / "c.zarr", levels=[changed, HALF]))
    assert slide_lib.identity(one) != slide_lib.identity(another)


@pytest.mark.parametrize("version", ZARR_OF)
def test_a_store_in_a_bucket_is_read_where_it_lies(tmp_path, version):
    path, memory = write(tmp_path / "a.ome.zarr", version), fsspec.filesystem("memory")
    bucket = f"/bucket{version}"
    memory.put(str(path), f"{bucket}/a.ome.zarr", recursive=True)
    for pattern in ("", "/*.zarr", "/a.ome.zarr", "/a.ome.zarr/"):
        assert remote.find(f"memory:/{bucket}{pattern}") == [f"memory://{bucket}/a.ome.zarr"]
    address = f"memory://{bucket}/a.ome.zarr"
    slide = remote.open_remote(address)
    np.testing.assert_array_equal(slide.read_region(0, 0, 300, 401, mpp=0.5), PIXELS)
    np.testing.assert_array_equal(slide.read_region(0, 0, 150, 200, mpp=1.0), HALF)
    before = remote.fingerprint(address)
    assert before[0] == "a.ome.zarr"
    assert slide_lib.identity(slide) == slide_lib.identity(open_slide(path))
    slide.close()
    memory.rm(address, recursive=True)
    changed = write(tmp_path / "b.zarr", version, levels=[PIXELS[::-1]])
    memory.put(str(changed), f"{bucket}/a.ome.zarr", recursive=True)
    assert remote.fingerprint(address) != before


def named(*names, bits=16, bands=(), low=(), high=()):
    many = multiband.MultibandConfig(names, low, high, bits, (), ())
    return reading_lib.ReadingConfig(bands, 0.0, 0.0, "stored", many)


def labelled(*labels):
    return {"channels": [{"label": label, "color": "FFFFFF"} for label in labels]}


@pytest.mark.parametrize("version", ZARR_OF)
def test_many_channels_are_found_by_their_labels(tmp_path, version):
    deep = np.random.default_rng(1).integers(0, 2**16, (90, 70, 5), np.uint16)
    omero = labelled("DAPI", "NIR", "Red", "green", "blue")
    path = write(tmp_path / "a.zarr", version, levels=[deep], omero=omero)
    slide = open_slide(path, reading=named("red", "green", "blue", "infrared"))
    assert (slide.multiband.count, slide.multiband.dtype) == (4, np.uint16)
    found = slide.read_region(-1, 5, 60, 70, mpp=0.5)
    assert (found[0] == 0).all()
    assert (found[:, 65:] == 0).all()
    np.testing.assert_array_equal(found[1:, :65], deep[:59, 5:, [2, 3, 4, 1]])
    by_number = open_slide(
        path, reading=named("a", "b", bits=8, bands=(5, 1), high=(257 * 255,) * 2)
    )
    found = by_number.read_region(0, 0, 90, 70, mpp=0.5)
    np.testing.assert_array_equal(found, np.floor(deep[..., [4, 0]] / 257 + 0.5))


def test_channels_of_fractions_need_a_range(tmp_path, caplog):
    values = np.random.default_rng(1).random((90, 70, 2), np.float32)
    values[4, 5, 1] = np.nan
    path = write(tmp_path / "a.zarr", levels=[values])
    with pytest.raises(SlideError, match="expected bands of 16 bits, got float32 with values 9"):
        open_slide(path, reading=named("a", "b"))
    with pytest.raises(SlideError, match=r"expected 3 bands \(a, b, c\) or more, got 2 bands in"):
        open_slide(path, reading=named("a", "b", "c"))
    slide = open_slide(path, reading=named("a", "b", high=(1, 1)))
    found = slide.read_region(0, 0, 90, 70, mpp=0.5)
    expected = np.floor(values.astype(np.float64) * 65535 + 0.5)
    expected[4, 5] = 0
    np.testing.assert_array_equal(found, expected)
    assert "the first 2 of 2 bands are used as a, b" in caplog.text
