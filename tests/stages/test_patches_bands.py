"""The stage `patches` on rasters of four bands: records, regions and what is told of them."""

import json
import logging

import numpy as np
import pytest
import rasterio

from configs import demo
from ssldiff_jax.core import schema
from ssldiff_jax.data import patch_list
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.data.census import census
from ssldiff_jax.runs import amounts, artifacts, launch, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.slides import SlideError, multiband, pyramid
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools import patch_images, verify

NAMES = ("red", "green", "blue", "nir")
LOW, HIGH = (100.0, 200.0, 300.0, 0.0), (8100.0, 8200.0, 8300.0, 10000.0)


def values(seed, shape=(448, 384), top=10000):
    """Coarse noise, as large as a sensor's numbers are."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, top, (4, shape[0] // 32, shape[1] // 32))
    whole = coarse.repeat(32, axis=1).repeat(32, axis=2)
    return (whole + generator.integers(0, 50, (4, *shape))).astype(np.uint16)


def write(path, pixels, descriptions=NAMES):
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count}
    transform = rasterio.Affine(1, 0, 500000, 0, -1, 4000000)
    more = {"dtype": str(pixels.dtype), "crs": "EPSG:32613", "transform": transform}
    with rasterio.open(path, "w", **profile, **more) as file:
        file.write(pixels)
        file.descriptions = descriptions
    return path


def config(slides, names=NAMES, **bands):
    c = demo.get_config()
    c.stages, c.data.slides, c.data.holdout.by = "patches", str(slides), "area"
    c.data.patch_mpp, c.data.engine.processes = 1e6, 1
    c.data.records.record_px = c.data.records.stride_px = 128
    c.data.crops.patch_px, c.data.crops.context_px = 64, 0
    c.data.records.min_tissue = 0.0
    c.data.regions.rows = c.data.regions.cols = 2
    c.data.regions.count, c.data.holdout.fraction = 1, 0.4
    c.autoencoder.model.bands = len(names) or 3
    chosen = c.data.reading.multiband
    chosen.names = names
    with chosen.unlocked():
        chosen.update(bands)
    return c


def launched(c, workdir):
    return launch.launch(c.to_dict(), workdir, table.STAGES)


def of_run(c, workdir):
    made = schema.build(run_config.RunConfig, c.to_dict())
    return artifacts.Artifacts(made, folders_lib.Folders.of(made, workdir))


def scaled(raw, bits, low=LOW, high=HIGH):
    """What a record holds, computed as the config's comment says it."""
    low, high = (np.array(ends)[:, None, None] for ends in (low, high))
    part = (raw.astype(float) - low) / (high - low)
    return np.moveaxis(np.floor(part.clip(0, 1) * (2**bits - 1) + 0.5), 0, -1)


@pytest.mark.parametrize("bits", [8, 16])
def test_records_and_regions_are_what_the_file_holds_in_its_range(tmp_path, bits):
    raw = values(0)
    path = write(tmp_path / "scene.tif", raw)
    c = config(path, low=LOW, high=HIGH, bits=bits)
    assert launched(c, tmp_path / "run") is None
    run, whole = of_run(c, tmp_path / "run"), scaled(raw, bits)
    for split in ("train", "test"):
        source = run.records(split)
        assert (source.num_bands, source.dtype) == (4, np.dtype(f"uint{bits}"))
        for record, (_, top, left, _) in zip(source, source.places.tolist(), strict=True):
            np.testing.assert_array_equal(record, whole[top : top + 128, left : left + 128])
    assert len(run.records("train")) == 9
    folder = tmp_path / "run/patches"
    (about,) = json.loads((folder / "regions.json").read_text())
    top, left = about["top"], about["left"]
    region = whole[top : top + 128, left : left + 128]
    with rasterio.open(folder / "region_0.tif") as file:
        assert file.descriptions == NAMES
        assert file.nodatavals == (0, 0, 0, 0)
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), region)
    shown = np.floor(region[..., :3] * 255 / (2**bits - 1) + 0.5)
    np.testing.assert_array_equal(pyramid.read_image(folder / "region_0.png"), shown)
    (reference,) = run.references()
    assert reference.image.dtype == source.dtype
    np.testing.assert_array_equal(reference.image, region)
    facts = json.loads((folder / "records/manifest.json").read_text())["facts"]
    expected = {"names": list(NAMES), "low": list(LOW), "high": list(HIGH), "bits": bits}
    assert facts["bands"] == expected
    assert "bands" not in facts["config"]
    squares = artifacts.patches_at(run.records("test"), 2, 64, 3)
    assert (squares.shape, squares.dtype) == ((2, 64, 64, 4), source.dtype)
    _, patch = run.patches("test").patch(0)
    np.testing.assert_array_equal(patch, run.records("test")[0][32:96, 32:96])


def test_tools_read_and_show_all_bands(tmp_path):
    c = config(write(tmp_path / "scene.tif", values(1, top=250).astype(np.uint8)))
    c.patch_images.folder = str(tmp_path / "images")
    launched(c, tmp_path / "run")
    made = schema.build(run_config.RunConfig, c.to_dict())
    context = stage.Context(made, tmp_path / "run", None)
    result = verify.run(context)
    assert result["damaged"] == []
    assert result["counts"] == {"records/train": 9, "records/test": 6}
    facts = patch_images.run(context)
    assert facts["images"] == {"train": 9, "test": 6}
    source = of_run(c, tmp_path / "run").records("train")
    paths = sorted((tmp_path / "images/train").iterdir())
    pairs = zip(source.places.tolist(), source, strict=True)
    by_place = {(top, left): record for (_, top, left, _), record in pairs}
    assert len(paths) == 9
    for path in paths:
        left, top = map(int, path.stem.rsplit("_", 2)[1:])
        with rasterio.open(path) as file:
            assert (path.suffix, file.descriptions) == (".tif", NAMES)
            np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), by_place[top, left])
    # Which are a list of patches in turn.
    listed = patch_list.open_list(f"folder:{tmp_path}/images", made.data.reading)
    number = next(i for i in range(len(listed)) if listed.name(i) == f"train/{paths[2].name}")
    left, top = map(int, paths[2].stem.rsplit("_", 2)[1:])
    np.testing.assert_array_equal(listed.read(number), by_place[top, left])


def entries(workdir):
    return {path.parent.name for path in (workdir / "archive").glob("*/entry.json")}


def test_records_of_other_bands_are_other_entries_and_the_stage_is_outdated(tmp_path):
    path = write(tmp_path / "scene.tif", values(2, top=250).astype(np.uint8))
    asked = [
        config(path, ()),
        config(path),
        config(path, low=(0.0,) * 4, high=(250.0,) * 4),
    ]
    seen, workdir = set(), tmp_path / "run"
    launched(asked[0], workdir)
    for number, c in enumerate(asked[1:], 2):
        with pytest.raises(stage.WorkdirError, match=r"force=patches") as error:
            launched(c, workdir)
        assert "multiband" in str(error.value)
        seen = entries(workdir)
        c.force = "patches"
        launched(c, workdir)
        assert len(entries(workdir)) == number
        assert entries(workdir) > seen
    # What was cut before is there, whatever was cut after it.
    seen = entries(workdir)
    asked[1].force = "patches"
    launched(asked[1], workdir)
    assert entries(workdir) == seen


def test_a_scene_of_fewer_bands_costs_itself_alone(tmp_path, caplog):
    (tmp_path / "scenes").mkdir()
    write(tmp_path / "scenes/a.tif", values(3, top=250).astype(np.uint8))
    write(tmp_path / "scenes/b.tif", values(4, top=250).astype(np.uint8)[:3], NAMES[:3])
    with caplog.at_level(logging.WARNING):
        line = launched(config(tmp_path / "scenes"), tmp_path / "run")
    assert line.startswith("1 of the files")
    (left_out,) = (tmp_path / "run/patches/quarantine.jsonl").read_text().splitlines()
    assert "b.tif" in left_out
    assert "expected 4 bands (red, green, blue, nir) or more, got 3 bands" in left_out


def squares(count, side=64, dtype=np.uint16):
    generator = np.random.default_rng(5)
    return generator.integers(0, np.iinfo(dtype).max + 1, (count, side, side, 4)).astype(dtype)


def of_list(spec, **bands):
    c = config(spec, **bands)
    c.data.records.record_px = c.data.records.stride_px = 64
    c.encoder.model.shift_px = c.judge.model.shift_px = 0
    c.data.mpp = 1e6
    return c


def test_a_list_of_scenes_becomes_records_of_all_bands(tmp_path):
    patches = squares(12)
    for number, patch in enumerate(patches):
        write(tmp_path / f"{number:02d}.tif", np.moveaxis(patch, -1, 0))
    c = of_list(f"folder:{tmp_path}", bits=16)
    launched(c, tmp_path / "run")
    run = of_run(c, tmp_path / "run")
    for split in ("train", "test"):
        source = run.records(split)
        for record, (number, *_) in zip(source, source.places.tolist(), strict=True):
            np.testing.assert_array_equal(record, patches[number])
    (reference,) = run.references()
    assert (reference.kind, reference.image.shape) == ("page", (128, 128, 4))
    listed = {patch.tobytes() for patch in patches}
    assert reference.image[:64, 64:].tobytes() in listed


@pytest.mark.parametrize(
    ("dtype", "bands"),
    [
        ("uint8", {"bits": 8}),
        ("uint16", {"bits": 16}),
        ("uint8", {"bits": 16}),
        ("uint16", {"bits": 8, "low": (0.0, 10.0, 20.0, 30.0), "high": (60000.0,) * 4}),
    ],
)
def test_an_array_of_pixels_becomes_records_of_its_bands(tmp_path, dtype, bands):
    patches = squares(10, dtype=np.dtype(dtype))
    np.save(tmp_path / "patches.npy", patches)
    c = of_list(tmp_path / "patches.npy", **bands)
    launched(c, tmp_path / "run")
    source = of_run(c, tmp_path / "run").records("train")
    low = bands.get("low", (0.0,) * 4)
    high = bands.get("high", (2.0 ** bands["bits"] - 1,) * 4)
    for record, (number, *_) in zip(source, source.places.tolist(), strict=True):
        expected = scaled(np.moveaxis(patches[number], -1, 0), bands["bits"], low, high)
        np.testing.assert_array_equal(record, expected)
    entry = json.loads(next((tmp_path / "run/archive").glob("*/entry.json")).read_text())
    assert entry["facts"]["bands"]["bits"] == bands["bits"]


@pytest.mark.parametrize(
    ("array", "bits", "said"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), 8, r"\(N, H, W, 4\).*got uint8 \(3, 8, 8, 3\)"),
        (np.zeros((3, 8, 8, 4), np.float32), 8, r"uint8 or uint16.*got float32"),
        (np.zeros((8, 8, 4), np.uint8), 8, r"got uint8 \(8, 8, 4\)"),
        (np.full((3, 8, 8, 4), 700, np.uint16), 8, r"8 bits, got uint16 with values 700…700"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_in_a_line_that_names_it(tmp_path, array, bits, said):
    np.save(tmp_path / "patches.npy", array)
    reading = schema.build(run_config.RunConfig, of_list("x.npy", bits=bits).to_dict()).data.reading
    with pytest.raises(patch_list.PatchListError, match=said) as error:
        patch_list.open_list(str(tmp_path / "patches.npy"), reading)
    assert "patches.npy" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_data_set_of_tfds_has_no_named_bands():
    reading = schema.build(run_config.RunConfig, of_list("x.npy").to_dict()).data.reading
    with pytest.raises(patch_list.PatchListError, match=r"tfds:mnist.*red, green, blue, nir"):
        patch_list.open_list("tfds:mnist", reading)


def test_a_region_of_other_bands_is_refused_by_its_name(tmp_path):
    c = config(write(tmp_path / "scene.tif", values(1, top=250).astype(np.uint8)))
    launched(c, tmp_path / "run")
    path = tmp_path / "run/patches/region_0.tif"
    write(path, np.ones((3, 128, 128), np.uint8), NAMES[:3])
    run = of_run(c, tmp_path / "run")
    with pytest.raises(SlideError, match=r"4 bands .*region_0.tif, got 3 of uint8"):
        run.references()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SlideError, match=r"region_0.tif"):
        run.references()


def test_records_lib_and_config_agree_on_how_squares_are_stored():
    bands = multiband.MultibandConfig(("nir",), (), (), 16, (), ())
    assert records_lib.quality_of(80, bands) is None
    assert records_lib.quality_of(80, multiband.NO_BANDS) == 80


@pytest.mark.parametrize("kind", ["scene", "array"])
def test_bytes_of_records_are_foretold_as_they_will_be(tmp_path, kind):
    if kind == "scene":
        c = config(write(tmp_path / "scene.tif", values(6)), bits=16)
    else:
        np.save(tmp_path / "patches.npy", squares(12))
        c = of_list(tmp_path / "patches.npy", bits=16)
    made = schema.build(run_config.RunConfig, c.to_dict())
    archive = tmp_path / "run/archive"
    told = census.of_config(made.data, made.embeddings, archive, 0, amounts.LARGEST_PATCH_PX)
    launched(c, tmp_path / "run")
    run, sizes = of_run(c, tmp_path / "run"), []
    for split in ("train", "test"):
        source = run.records(split)
        assert told.records[split].value == len(source)
        sizes += [len(source.record(number)) for number in range(len(source))]
    assert told.record_bytes.value == pytest.approx(np.mean(sizes), rel=1e-9)
    assert told.picture is None or told.picture.shape == (128, 128, 3)
