"""A directory of slides, good and bad, to records: what the stage `patches` makes of an archive."""

import csv
import functools
import http.server
import json
import logging
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from PIL import Image

from configs import demo
from ssldiff_jax.data import archive, demo_slide, records
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.slides import tissue as tissue_lib
from ssldiff_jax.stages import table

LONG = "ü" * 100


def config(slides, *changes):
    c = demo.get_config()
    c.stages, c.data.slides, c.data.mpp = "patches", str(slides), 0.0
    c.data.regions.rows, c.data.regions.cols, c.data.regions.count = 2, 2, 1
    c.data.records.record_px = c.data.records.stride_px = 128
    c.data.engine.processes = 1
    with c.unlocked():
        for key, value in changes:
            *path, last = key.split(".")
            functools.reduce(getattr, path, c)[last] = value
    return c.to_dict()


@pytest.fixture(scope="module")
def tissue():
    """Pixels of the real slide."""
    slide = slide_lib.open_slide(demo_slide.demo_slide())
    yield slide.read_region(300, 300, 1024, 768, mpp=0.5)
    slide.close()


def write(path, pixels, mpp=0.5):
    pyramid.write_pyramid(path, pixels, pyramid.Scale(mpp))
    return path


@pytest.fixture
def folder(tmp_path, tissue):
    """Three slides of two cases."""
    made = tmp_path / "slides"
    made.mkdir()
    for i, name in enumerate(("TCGA-AA-0001-1", "TCGA-AA-0001-2", "TCGA-BB-0002-1")):
        write(made / f"{name}.tiff", np.roll(tissue, 64 * i, axis=1))
    return made


def shas(workdir):
    splits = json.loads((workdir / "patches/records/manifest.json").read_text())["splits"]
    return {name: [s["sha256"] for s in split["shards"]] for name, split in splits.items()}


def entries(workdir):
    return {p: p.stat().st_mtime_ns for p in (workdir / "archive").glob("*/entry.json")}


def quarantine(workdir):
    lines = (workdir / "patches/quarantine.jsonl").read_text().splitlines()
    return {pathlib.PurePath(q["slide"]).name: q["reason"] for q in map(json.loads, lines)}


BEAM = ("--runner=DirectRunner", "--direct_num_workers=2",
        "--direct_running_mode=multi_processing")  # fmt: skip


@pytest.mark.parametrize(
    "engine", [{"processes": 2}, {"kind": "beam", "beam": BEAM}], ids=["processes", "beam"]
)
def test_every_engine_makes_the_same_bytes(tmp_path, folder, engine):
    if "beam" in engine:
        pytest.importorskip("apache_beam")
    launch.launch(config(folder), tmp_path / "alone", table.STAGES)
    changes = [(f"data.engine.{key}", value) for key, value in engine.items()]
    launch.launch(config(folder, *changes), tmp_path / "many", table.STAGES)
    assert shas(tmp_path / "many") == shas(tmp_path / "alone")
    names = lambda workdir: {p.parent.name for p in entries(workdir)}
    assert names(tmp_path / "many") == names(tmp_path / "alone")
    assert len(names(tmp_path / "many")) == 3


def test_fewer_regions_than_asked_for_are_taken_and_told(tmp_path, folder, caplog):
    launch.launch(config(folder, ("data.regions.count", 99)), tmp_path, table.STAGES)
    found = json.loads((tmp_path / "patches/regions.json").read_text())
    assert 0 < len(found) < 99
    (line,) = [r.getMessage() for r in caplog.records if "held-out regions" in r.getMessage()]
    assert line.startswith(f"{len(found)} of the 99 held-out regions of 128 × 128 px")


def test_no_region_says_which_keys_help(tmp_path, folder):
    with pytest.raises(
        ValueError, match=r"regions of 3200 × 128 px, got none: .*rows=50.*fraction"
    ):
        launch.launch(config(folder, ("data.regions.rows", 50)), tmp_path, table.STAGES)


def test_an_added_slide_costs_that_slide_alone(tmp_path, folder, tissue):
    launch.launch(config(folder), tmp_path, table.STAGES)
    before = entries(tmp_path)
    write(folder / "TCGA-AA-0000-9.tiff", tissue[::-1])
    launch.launch(config(folder, ("force", "patches")), tmp_path, table.STAGES)
    after = entries(tmp_path)
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()
    # The new one is the first by name: numbers of slides move, their records do not.
    names = json.loads((tmp_path / "patches/done.json").read_text())["facts"]["slides"]
    assert names["0"] == "TCGA-AA-0000-9.tiff"
    source = records.RecordSource(tmp_path / "patches/records", "train")
    assert source.slides[:, 0].tolist() == [0, 1, 2, 3]
    assert (np.unique(source.places[:, 0]) == [0, 1, 2, 3]).all()


def test_what_was_cut_off_goes_on_at_the_slide(tmp_path, folder, monkeypatch):
    launch.launch(config(folder), tmp_path / "whole", table.STAGES)
    first = sorted((tmp_path / "whole/archive").glob("TCGA-AA-0001-1*"))[0]
    of_first = sum(len(archive.Entry.read(first).places(s)) for s in ("train", "test"))
    add, count = archive.EntryWriter.add, []

    def dies(*args, **kwargs):
        count.append(1)
        if len(count) == of_first + 5:  # in the second slide
            raise KeyboardInterrupt
        add(*args, **kwargs)

    monkeypatch.setattr(archive.EntryWriter, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        launch.launch(config(folder), tmp_path / "cut", table.STAGES)
    monkeypatch.undo()
    before = entries(tmp_path / "cut")
    assert len(before) == 1
    assert len(list((tmp_path / "cut/archive").iterdir())) == 1  # nothing half
    launch.launch(config(folder), tmp_path / "cut", table.STAGES)
    assert before.items() <= entries(tmp_path / "cut").items()
    assert shas(tmp_path / "cut") == shas(tmp_path / "whole")


def test_runs_share_an_archive(tmp_path, folder):
    shared = ("data.archive", str(tmp_path / "shared"))
    launch.launch(config(folder, shared), tmp_path / "one", table.STAGES)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "shared").glob("*/entry.json")}
    launch.launch(config(folder, shared), tmp_path / "two", table.STAGES)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "shared").glob("*/entry.json")} == before
    other = ("data.records.jpeg_quality", 80)
    launch.launch(config(folder, shared, other), tmp_path / "three", table.STAGES)
    assert len(list((tmp_path / "shared").glob("*/entry.json"))) == 2 * len(before)


def test_splits_are_by_case_and_stay_when_slides_are_added(tmp_path, folder, tissue):
    by_case = [("data.holdout.by", "case"), ("data.holdout.fraction", 0.44),
               ("data.holdout.case_regex", r"TCGA-\w{2}-\w{4}")]  # fmt: skip

    def sides(workdir):
        builder = tfds.builder_from_directory(workdir / "patches/records")
        return {
            split: {example["case"].decode() for example in builder.as_data_source(split)}
            for split in ("train", "test")
        }

    launch.launch(config(folder, *by_case), tmp_path / "few", table.STAGES)
    for i in range(4):
        write(folder / f"TCGA-CC-{i:04d}-1.tiff", np.roll(tissue, 40 * i + 9, axis=0))
    launch.launch(config(folder, *by_case), tmp_path / "more", table.STAGES)
    few, more = sides(tmp_path / "few"), sides(tmp_path / "more")
    assert more["train"].isdisjoint(more["test"])
    assert all(few[split] <= more[split] for split in few)
    assert len(more["train"] | more["test"]) == 6


def test_several_magnifications_are_splits_of_their_own(tmp_path, folder):
    launch.launch(config(folder, ("data.records.scales", (2.0,))), tmp_path, table.STAGES)
    finer, coarser = (
        records.RecordSource(tmp_path / "patches/records", split) for split in ("train", "train_x2")
    )
    assert len(coarser) < len(finer) / 2
    # The same corner at half the size is the coarser record's quarter.
    at = {tuple(place[:3]): i for i, place in enumerate(finer.places.tolist())}
    compared = 0
    for i, (slide, top, left, _) in enumerate(coarser.places.tolist()):
        if (slide, 2 * top, 2 * left) in at:
            whole = finer[at[slide, 2 * top, 2 * left]].astype(float)
            half = whole.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
            corner = coarser[i][:64, :64].astype(float)
            assert np.corrcoef(half.ravel(), corner.ravel())[0, 1] > 0.97
            compared += 1
    assert compared
    mpp = {e["mpp"] for e in tfds.builder_from_directory(tmp_path / "patches/records")
           .as_data_source("train_x2")}  # fmt: skip
    assert mpp == {1.0}


def bomb(path):
    """A PNG whose header promises 10¹⁰ pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def geotiff(path, bands, dtype="uint8", crs="EPSG:32614", **kwargs):
    values = np.random.default_rng(0).integers(1, 200, (bands, 300, 300)).astype(dtype)
    transform = rasterio.transform.from_origin(5e5, 5e6, 5e-7, 5e-7)
    with rasterio.open(path, "w", driver="GTiff", width=300, height=300, count=bands, dtype=dtype,
                       crs=crs, transform=transform, **kwargs) as file:  # fmt: skip
        file.write(values if "nodata" not in kwargs else np.zeros_like(values))
    return path


@pytest.fixture
def trouble(folder, tissue):
    """Everything that goes wrong, beside slides that are well."""
    svs = demo_slide.demo_slide().read_bytes()
    (folder / "cut.svs").write_bytes(svs[: len(svs) // 2])
    (folder / "empty.svs").write_bytes(b"")
    (folder / "loop.svs").symlink_to(folder / "loop.svs")
    (folder / "lost.svs").symlink_to(folder / "nowhere.svs")
    bomb(folder / "bomb.png")
    Image.fromarray(tissue).save(folder / "no_mpp.png")
    Image.fromarray(tissue).save(folder / "jpeg.jpg")
    (folder / "jpeg.jpg").rename(folder / "jpeg.svs")
    pyramid.write_pyramid(folder / "odd.tiff", tissue, pyramid.Scale(4000.0))
    geotiff(folder / "deep.tif", 1, "uint16")
    geotiff(folder / "one_band.tif", 1)
    geotiff(folder / "nowhere.tif", 3, crs=None)
    geotiff(folder / "nodata.tif", 3, nodata=0)
    write(folder / "white.tiff", np.full((600, 600, 3), 255, np.uint8))
    shutil.copy(folder / "TCGA-AA-0001-1.tiff", folder / "twin.tiff")
    write(folder / f"{LONG}.tiff", tissue[:, ::-1])
    return folder


QUARANTINED = {
    "cut.svs": "cut.svs",
    "empty.svs": "empty",
    "loop.svs": "loop",
    "lost.svs": "no such file",
    "bomb.png": "100000",
    "no_mpp.png": "--config.data.mpp",
    "jpeg.svs": "--config.data.mpp",
    "odd.tiff": "--config.data.mpp",
    "deep.tif": "config.data.reading.low",
    "nowhere.tif": "--config.data.mpp",
    "twin.tiff": "the same pixels as",
}


def test_the_batch_goes_on_and_says_what_it_left_out(tmp_path, trouble):
    told = launch.launch(config(trouble), tmp_path / "run", table.STAGES)
    assert told.startswith(f"{len(QUARANTINED)} of the files")
    found = quarantine(tmp_path / "run")
    assert found.keys() == QUARANTINED.keys()
    for name, reason in QUARANTINED.items():
        assert reason in found[name], name
        assert len(found[name].splitlines()) == 1
    names = json.loads((tmp_path / "run/patches/done.json").read_text())["facts"]["slides"]
    used = set(names.values())
    assert used == {
        "TCGA-AA-0001-1.tiff", "TCGA-AA-0001-2.tiff", "TCGA-BB-0002-1.tiff", f"{LONG}.tiff",
        "one_band.tif", "nodata.tif", "white.tiff",
    }  # fmt: skip
    # What has no tissue is used, and has no record.
    source = records.RecordSource(tmp_path / "run/patches/records", "train")
    with_records = {names[str(number)] for number, count in source.slides.tolist() if count}
    assert with_records == used - {"one_band.tif", "nodata.tif", "white.tiff"}


def test_what_slides_are_made_of_is_a_table(tmp_path, folder):
    launch.launch(config(folder), tmp_path, table.STAGES)
    rows = list(csv.DictReader((tmp_path / "patches/slides.csv").open()))
    assert [row["case"] for row in rows] == ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-BB-0002"]
    for row in rows:
        assert (row["mpp"], row["height"], row["width"]) == ("0.5", "1024", "768")
        kinds = [float(row[kind]) for kind in tissue_lib.KINDS]
        assert abs(sum(kinds) - 1) < 1e-3
        assert 0.1 < float(row["tissue"]) < 0.3
    counts = {row["number"]: int(row["train"]) for row in rows}
    source = records.RecordSource(tmp_path / "patches/records", "train")
    assert counts == {str(number): count for number, count in source.slides.tolist()}


def test_a_slide_that_was_mended_is_used(tmp_path, folder):
    whole = (folder / "TCGA-BB-0002-1.tiff").read_bytes()
    (folder / "TCGA-BB-0002-1.tiff").write_bytes(b"")
    launch.launch(config(folder), tmp_path, table.STAGES)
    assert quarantine(tmp_path).keys() == {"TCGA-BB-0002-1.tiff"}
    (folder / "TCGA-BB-0002-1.tiff").write_bytes(whole)
    assert launch.launch(config(folder, ("force", "patches")), tmp_path, table.STAGES) is None
    assert quarantine(tmp_path) == {}


def test_a_slide_that_vanishes_half_way_is_left_out(tmp_path, folder, monkeypatch):
    """The storage behind it is gone while it is read."""
    read, count = slide_lib.LeveledSlide.read_region, []

    def vanishes(slide, *args, **kwargs):
        if slide.path.name == "TCGA-AA-0001-2.tiff":
            count.append(1)
            if len(count) > 10:
                raise OSError(5, "Input/output error", str(slide.path))
        return read(slide, *args, **kwargs)

    monkeypatch.setattr(slide_lib.LeveledSlide, "read_region", vanishes)
    launch.launch(config(folder), tmp_path, table.STAGES)
    assert "Input/output error" in quarantine(tmp_path)["TCGA-AA-0001-2.tiff"]
    assert len(entries(tmp_path)) == 2


def test_nothing_usable_is_refused(tmp_path):
    (tmp_path / "empty.svs").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no slide could be used; the first.*empty") as caught:
        launch.launch(config(tmp_path), tmp_path / "run", table.STAGES)
    assert len(str(caught.value).splitlines()) == 1
    assert quarantine(tmp_path / "run").keys() == {"empty.svs"}


def run(slides, workdir):
    """The command line, as its exit status and last line."""
    changes = ("--config.stages=patches", "--config.data.mpp=0.5", "--config.data.regions.rows=2",
               "--config.data.regions.cols=2", "--config.data.regions.count=1",
               f"--config.data.slides={slides}")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "ssldiff_jax.main", "--config=configs/demo.py",
         f"--workdir={workdir}", *changes],
        capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[2], check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_the_exit_status_tells(tmp_path, folder):
    """Two processes here: the command line starts them without asking for its flags again."""
    assert run(folder, tmp_path / "run")[0] == 0
    (folder / "empty.svs").write_bytes(b"")
    status, line = run(folder, tmp_path / "some")
    assert status == 3
    assert "1 of the files" in line
    assert "quarantine.jsonl" in line
    status, line = run(folder / "empty.svs", tmp_path / "none")
    assert status == 1
    assert line.startswith("error: no slide could be used")


@pytest.fixture
def server(folder):
    """The slides behind an address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def test_slides_behind_an_address(tmp_path, folder, server):
    pytest.importorskip("aiohttp")
    names = sorted(path.name for path in folder.iterdir())
    addresses = ",".join(f"{server}/{name}" for name in names)
    launch.launch(config(addresses), tmp_path / "far", table.STAGES)
    launch.launch(config(folder), tmp_path / "near", table.STAGES)
    assert shas(tmp_path / "far") == shas(tmp_path / "near")
    with pytest.raises(ValueError, match=r"no slide could .*missing.svs: nothing is there"):
        launch.launch(config(f"{server}/missing.svs"), tmp_path / "none", table.STAGES)


def test_a_folder_behind_an_address(tmp_path, folder):
    launch.launch(config(f"file://{folder}"), tmp_path / "folder", table.STAGES)
    launch.launch(config(f"file://{folder}/TCGA-AA*.tiff"), tmp_path / "glob", table.STAGES)
    assert len(entries(tmp_path / "folder")) == 3
    assert len(entries(tmp_path / "glob")) == 2


def test_verify_names_a_damaged_shard(tmp_path, folder, caplog):
    launch.launch(config(folder), tmp_path, table.STAGES)
    verify = config(folder, ("stages", "verify"))
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        launch.launch(verify, tmp_path, table.STAGES)
    counts = json.loads((tmp_path / "verify/results.json").read_text())["counts"]
    assert counts["records/train"] == len(
        records.RecordSource(tmp_path / "patches/records", "train")
    )
    assert f"verify: all stored data is intact ({counts['records/train']} of" in caplog.text
    shard = sorted((tmp_path / "archive").glob("TCGA-BB*/train-*.array_record"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 255
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"1 shards are damaged: TCGA-BB.*--config.force=patches"):
        launch.launch(verify, tmp_path, table.STAGES)
    # What was found is kept.
    assert json.loads((tmp_path / "verify/results.json").read_text())["damaged"]
    # What it says to do mends it.
    shutil.rmtree(shard.parent)
    launch.launch(config(folder, ("force", "patches")), tmp_path, table.STAGES)
    launch.launch(verify, tmp_path, table.STAGES)


def test_a_folder_of_images_by_class(tmp_path, tissue):
    for i in range(24):
        at = tmp_path / "tiles" / ("tumour" if i % 2 else "stroma")
        at.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tissue[32 * i : 32 * i + 128, :128]).save(at / f"{i}.png")
    (tmp_path / "tiles/stroma/bad.png").write_bytes(b"no image")
    changes = [("data.holdout.by", "area"), ("data.mpp", 0.5)]
    told = launch.launch(
        config(f"folder:{tmp_path}/tiles", *changes), tmp_path / "run", table.STAGES
    )
    assert told.startswith("1 of the files")
    assert list(quarantine(tmp_path / "run")) == ["bad.png"]
    source = tfds.builder_from_directory(tmp_path / "run/patches/records").as_data_source("train")
    labels = {(e["slide"].decode(), e["label"].decode()) for e in source}
    assert all(slide.startswith(f"{label}/") for slide, label in labels)
    assert {label for _, label in labels} == {"tumour", "stroma"}
