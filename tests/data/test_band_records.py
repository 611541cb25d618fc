"""Records of other bands than red, green and blue: stored, read back, cropped, put together."""

import collections
import io
import itertools
import os
import pathlib

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from PIL import Image

from ssldiff_jax.core import bands as bands_lib
from ssldiff_jax.data import archive, crop_reader, crops, loader, mosaic, plan
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.formats import atomic
from ssldiff_jax.slides import multiband as multiband_lib

SIDE, STEP, TILES = 32, 24, 4
CONFIG = loader.LoaderConfig(num_threads=2, prefetch=4)
SCENE = pathlib.Path(os.environ.get("SSLDIFF_NAIP", "none")) / "20170827.tif"


def bands_of(count, bits, **changes):
    keys = {"low": (), "high": (), "shown": (), "encoded": ()} | changes
    names = ("red", "green", "blue", "nir", "b5", "b6", "b7", "b8")[:count]
    return multiband_lib.MultibandConfig(names=names, bits=bits, **keys)


def scene(bands):
    size = STEP * (TILES - 1) + SIDE
    generator = np.random.default_rng(bands.count)
    return generator.integers(0, bands.top + 1, (size, size, bands.count)).astype(bands.dtype)


def write(folder, pixels, bands):
    """A data set of overlapping squares of an image, those of one column for the test split."""
    about = {"slide": "scene.tif", "case": "scene", "label": "", "mpp": 0.5}
    quality = records_lib.quality_of(95, bands)
    with archive.new_entry(folder / "entry", **about) as (writer, _):
        for row, col in itertools.product(range(TILES), range(TILES)):
            square = plan.Square(0, row * STEP, col * STEP, SIDE, SIDE)
            split = "test" if col == TILES - 1 else "train"
            writer.add(split, square, cut(pixels, square), quality)
        writer.close(**records_lib.facts_of(bands))
    entry = archive.Entry.read(folder / "entry")
    archive.publish(folder / "records", {7: entry}, bands, slides=1)
    return folder / "records"


def cut(pixels, square):
    return pixels[square.top : square.top + square.height, square.left : square.left + square.width]


KINDS = list(itertools.product((1, 3, 4, 8), (8, 16)))
Written = collections.namedtuple("Written", "folder pixels bands")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}x{kind[1]}bit")
def written(request, tmp_path_factory):
    bands = bands_of(*request.param)
    pixels = scene(bands)
    return Written(write(tmp_path_factory.mktemp("bands"), pixels, bands), pixels, bands)


def test_records_are_bit_for_bit_what_was_cut(written):
    found, total = records_lib.RecordSource(written.folder, "train"), 0
    assert (found.num_bands, found.dtype) == (written.bands.count, written.bands.dtype)
    for record, (_, top, left, _) in zip(found, found.places.tolist(), strict=True):
        square = plan.Square(7, top, left, SIDE, SIDE)
        assert record.dtype == written.bands.dtype
        np.testing.assert_array_equal(record, cut(written.pixels, square))
        assert not record.flags.writeable
        total += 1
    assert total == TILES * (TILES - 1)


def test_what_the_bands_are_is_said_once_with_the_entry_and_with_the_data_set(written):
    expected = written.bands.facts
    manifest = atomic.read_json(written.folder / "manifest.json")["facts"]
    assert manifest == {"slides": 1, "bands": expected}
    entry = archive.Entry.read(written.folder.parent / "entry")
    assert entry.facts == {"bands": expected}
    assert expected["names"] == list(written.bands.names)
    assert expected["high"] == [float(written.bands.top)] * written.bands.count


def test_tfds_reads_the_bands_under_each_other(written):
    builder = tfds.builder_from_directory(written.folder)
    feature = builder.info.features["image"]
    assert feature.shape == (None, None, 1)
    assert feature.np_dtype == written.bands.dtype
    # TFDS decodes 16 bits by OpenCV or TensorFlow alone; the bytes are a PNG in any case.
    raw = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})[5]
    with Image.open(io.BytesIO(raw["image"])) as image:
        stacked = np.asarray(image)[..., None]
    if written.bands.bits == 8:
        decoded = builder.as_data_source("train")[5]["image"]
        np.testing.assert_array_equal(decoded, stacked)
    reshaped = np.moveaxis(stacked.reshape(written.bands.count, SIDE, SIDE), 0, -1)
    square = plan.Square(7, int(raw["top"]), int(raw["left"]), SIDE, SIDE)
    np.testing.assert_array_equal(reshaped, cut(written.pixels, square))


def turned(square, orientation):
    square = np.rot90(square, orientation % 4)
    return square[:, ::-1] if orientation >= 4 else square


@pytest.mark.parametrize("context_px", [0, 3])
def test_crops_of_all_orientations_have_all_bands(written, context_px):
    source = records_lib.RecordSource(written.folder, "train")
    config = crops.CropConfig(16, 40, context_px, True, "patch")
    table = crops.CropTable(len(source), SIDE, config, seed=1)
    reader, side = crop_reader.CropReader(source, table), 16 + 2 * context_px
    chosen = [table[i] for i in range(40)]
    assert {crop.orientation for crop in chosen} == set(range(8))
    expected = []
    for crop in chosen:
        _, top, left, _ = source.places[crop.record].tolist()
        square = plan.Square(7, top + crop.top, left + crop.left, side, side)
        expected.append(turned(cut(written.pixels, square), crop.orientation))
    found = reader.with_context(range(40))
    assert found.dtype == written.bands.dtype
    np.testing.assert_array_equal(found, expected)
    inner = slice(context_px, context_px + 16)
    np.testing.assert_array_equal(reader.patches([3]), np.array(expected)[3:4, inner, inner])


def test_the_cells_that_a_patch_touches_have_all_bands(written):
    source = records_lib.RecordSource(written.folder, "train")
    table = crops.CropTable(len(source), SIDE, crops.CropConfig(12, 9, 0, True, "cells"), seed=1)
    cells, corners = crop_reader.CropReader(source, table).cells(range(9))
    count = written.bands.count
    assert (cells.shape, cells.dtype) == ((9, 4, 12, 12, count), written.bands.dtype)
    blocks = cells.reshape(9, 2, 2, 12, 12, count).swapaxes(2, 3).reshape(9, 24, 24, count)
    patches = crop_reader.CropReader(source, table).patches(range(9))
    for block, corner, patch in zip(blocks, corners, patches, strict=True):
        top, left = np.round(-corner * 12).astype(int)
        np.testing.assert_array_equal(block[top : top + 12, left : left + 12], patch)


def test_records_are_put_together_to_what_they_were_cut_from(written):
    whole = mosaic.Mosaic(records_lib.RecordSource(written.folder, "train"), SIDE)
    square = plan.Square(7, 5, 11, 60, 44)
    np.testing.assert_array_equal(whole.read(square), cut(written.pixels, square))
    table = mosaic.RegionTable(whole, 12, 10, 2, 3, True, seed=0)
    seen = set()
    for _, region in table.among(range(12)):
        expected = turned(cut(written.pixels, region.square), region.orientation)
        np.testing.assert_array_equal(table.read(region), expected)
        top, left = 10 * region.row, 10 * region.col
        np.testing.assert_array_equal(
            table.read_grid(region), expected[top : top + 20, left : left + 20]
        )
        seen.add(region.orientation)
    assert len(seen) > 3


def batches(source, see=None):
    return loader.patch_batches(
        source, side=20, dihedral=True, batch_size=6, seed=3, config=CONFIG, see=see
    )


def test_batches_have_all_bands_and_those_that_are_seen_are_views_of_the_same(written):
    source, top = records_lib.RecordSource(written.folder, "train"), written.bands.top
    see = bands_lib.View((written.bands.count - 1, 0, 0), written.bands.kind)
    pairs = zip(batches(source), batches(source, see), strict=False)
    for whole, seen in itertools.islice(pairs, 4):
        assert (whole["pixels"].shape, whole["pixels"].dtype) == (
            (6, 20, 20, written.bands.count), written.bands.dtype,
        )  # fmt: skip
        assert seen["pixels"].dtype == np.uint8
        values = whole["pixels"][..., [written.bands.count - 1, 0, 0]].astype(float) * 255 / top
        np.testing.assert_array_equal(seen["pixels"], np.floor(values + 0.5))
        np.testing.assert_array_equal(seen["index"], whole["index"])


def test_crops_of_rgb_that_are_seen_are_the_same(tmp_path):
    bands = multiband_lib.NO_BANDS
    pixels = np.random.default_rng(0).integers(0, 256, (104, 104, 3), np.uint8)
    source = records_lib.RecordSource(write(tmp_path, pixels, bands), "train")
    assert (source.num_bands, source.dtype) == (3, np.uint8)
    both = [next(iter(batches(source, see)))["pixels"] for see in (None, bands.encoded_view)]
    np.testing.assert_array_equal(*both)


def test_a_data_set_of_rgb_says_nothing_of_bands_and_is_jpeg(tmp_path):
    pixels = np.full((104, 104, 3), 9, np.uint8)
    folder = write(tmp_path, pixels, multiband_lib.NO_BANDS)
    assert atomic.read_json(folder / "manifest.json")["facts"] == {"slides": 1}
    record = records_lib.RecordSource(folder, "test").record(0)
    assert records_lib.encoded_image(record).startswith(b"\xff\xd8\xff")
    feature = tfds.builder_from_directory(folder).info.features["image"]
    assert (feature.shape, feature.encoding_format) == ((None, None, 3), "jpeg")


def test_red_green_and_blue_that_a_config_names_are_stored_without_loss(tmp_path):
    bands = bands_of(3, 8)
    pixels = scene(bands)
    source = records_lib.RecordSource(write(tmp_path, pixels, bands), "test")
    left = STEP * (TILES - 1)
    np.testing.assert_array_equal(source[0], pixels[:SIDE, left : left + SIDE])


def test_a_record_that_is_cut_off_is_refused_in_one_line():
    whole = records_lib.encode(scene(bands_of(4, 16)), None).getvalue()
    with pytest.raises(OSError, match="truncated") as error:
        records_lib.decode(whole[: len(whole) // 2])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not SCENE.exists(), reason="SSLDIFF_NAIP names no folder of scenes")
def test_four_bands_of_a_real_scene_come_back_as_rasterio_reads_them(tmp_path):
    with rasterio.open(SCENE) as file:
        pixels = np.moveaxis(file.read(), 0, -1)[100:204, 300:404]
    bands = bands_of(4, 8)
    source = records_lib.RecordSource(write(tmp_path, pixels, bands), "train")
    for record, (_, top, left, _) in zip(source, source.places.tolist(), strict=True):
        np.testing.assert_array_equal(record, cut(pixels, plan.Square(7, top, left, SIDE, SIDE)))
