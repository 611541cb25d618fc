"""The stage `patches` by a table of slides: three scales, splits by case, written back."""

import csv
import functools
import json
import logging
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import demo
from ssldiff_jax.core import schema
from ssldiff_jax.data import demo_slide, own_scale, slide_source
from ssldiff_jax.runs import artifacts, launch, stage, table_changes
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import provenance
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import table

MPP = {"half.tiff": 0.25, "same.tiff": 0.5, "quarter.png": 0.125, "none.tiff": 0.5}
CASE = {"half.tiff": "p", "same.tiff": "q", "quarter.png": "r", "none.tiff": "p"}
SPLIT = {"half.tiff": "train", "same.tiff": "test", "quarter.png": "val", "none.tiff": "train"}


def config(path, *changes):
    c = demo.get_config()
    c.stages, c.data.slides = "patches", str(path)
    c.data.holdout.by, c.data.mpp = "case", 0.0
    c.data.regions.rows, c.data.regions.cols, c.data.regions.count = 2, 2, 1
    c.data.records.record_px = c.data.records.stride_px = 128
    c.data.records.min_tissue, c.data.engine.processes = 0.0, 1
    with c.unlocked():
        for key, value in changes:
            *parents, last = key.split(".")
            functools.reduce(getattr, parents, c)[last] = value
    return c.to_dict()


@pytest.fixture
def slides(tmp_path):
    """Real tissue of one scale, stored with 1, 4 and 16 pixels for each, whose files say another
    scale or none; and a table of four, one of which is not there."""
    with_slide = slide_lib.open_slide(demo_slide.demo_slide())
    pixels = with_slide.read_region(300, 300, 512, 768, mpp=0.5)
    with_slide.close()
    folder = tmp_path / "slides"
    folder.mkdir()
    twice = lambda image, n: image.repeat(n, axis=0).repeat(n, axis=1)
    pyramid.write_pyramid(folder / "half.tiff", twice(pixels, 2), pyramid.Scale(1.0))
    pyramid.write_pyramid(folder / "same.tiff", np.roll(pixels, 64, 1), pyramid.Scale(0.5))
    Image.fromarray(twice(pixels[:, ::-1], 4)).save(folder / "quarter.png")
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["slide", "mpp", "case", "label", "split"])
        for name, mpp in MPP.items():
            rows.writerow([f"slides/{name}", mpp, CASE[name], f"={name[0]}()", SPLIT[name]])
    return path


def shas(workdir):
    splits = json.loads((workdir / "patches/records/manifest.json").read_text())["splits"]
    return {name: [s["sha256"] for s in split["shards"]] for name, split in splits.items()}


def test_three_scales_by_one_table(tmp_path, slides, caplog):
    caplog.set_level(logging.INFO)
    workdir = tmp_path / "run"
    assert launch.launch(config(slides), workdir, table.STAGES).startswith("1 of the files")
    (left_out,) = (workdir / "patches/quarantine.jsonl").read_text().splitlines()
    assert "none.tiff" in left_out
    assert "no such file" in left_out
    assert "table.csv: row 5" in left_out
    rows = {r["slide"]: r for r in csv.DictReader((workdir / "patches/slides.csv").open())}
    assert rows.keys() == MPP.keys() - {"none.tiff"}
    assert all(float(row["mpp"]) == MPP[name] for name, row in rows.items())
    assert all(row["case"] == CASE[name] for name, row in rows.items())
    # The same ground, whatever the pixels that were stored for it.
    assert rows["half.tiff"]["train"] == rows["same.tiff"]["test"] == "24"
    assert rows["quarter.png"]["validation"] == "24"
    told = [r.getMessage() for r in caplog.records if "as asked for" in r.getMessage()]
    assert len(told) == 1
    assert "half.tiff has 0.25 µm/px as asked for; its file says 1 µm/px" in told[0]
    assert any("3 cases, 1 of them held out by the table" in r.getMessage() for r in caplog.records)


def test_records_are_of_their_split_and_have_its_label(tmp_path, slides):
    workdir = tmp_path / "run"
    launch.launch(config(slides), workdir, table.STAGES)
    for split, name in (
        ("train", "half.tiff"),
        ("validation", "quarter.png"),
        ("test", "same.tiff"),
    ):
        found = tfds.builder_from_directory(workdir / "patches/records").as_data_source(split)
        about = [(r["slide"], r["case"], r["label"]) for r in found]
        assert {tuple(map(bytes.decode, one)) for one in about} == {
            (name, CASE[name], f"={name[0]}()")
        }
        assert len(about) == 24
    made = schema.build(run_config.RunConfig, config(slides))
    found = artifacts.Artifacts(made, folders_lib.Folders.of(made, workdir))
    assert found.has_split("validation")
    assert sorted(found.slide_cases.values()) == ["p", "q", "r"]


def test_a_slide_without_a_scale_is_told_its_row(tmp_path, slides):
    """The key of the config would hold for all slides of the table."""
    slides.write_text(slides.read_text().replace("quarter.png,0.125", "quarter.png,"))
    launch.launch(config(slides), tmp_path / "run", table.STAGES)
    lines = map(json.loads, (tmp_path / "run/patches/quarantine.jsonl").read_text().splitlines())
    reasons = {pathlib.PurePath(line["slide"]).name: line["reason"] for line in lines}
    assert reasons["quarter.png"] == (
        f"expected microns per pixel, got none in {tmp_path}/slides/quarter.png: say it in the "
        f"column mpp or metres of {slides}: row 4"
    )


def test_the_split_is_written_back_as_it_was_used(tmp_path, slides):
    launch.launch(config(slides), tmp_path / "first", table.STAGES)
    written = tmp_path / "first/patches/table.csv"
    rows = {r["slide"].rpartition("/")[2]: r for r in csv.DictReader(written.open())}
    wanted = {"half.tiff": "train", "quarter.png": "validation", "same.tiff": "test"}
    assert {name: row["split"] for name, row in rows.items()} == wanted
    # A spreadsheet computes nothing, and the labels are the same when it is read again.
    assert {name: row["label"] for name, row in rows.items()} == {n: f"'={n[0]}()" for n in wanted}
    assert launch.launch(config(written), tmp_path / "again", table.STAGES) is None
    assert shas(tmp_path / "again") == shas(tmp_path / "first")
    # It says so of slides without a table, too.
    by_hash = config(tmp_path / "slides", ("data.mpp", 0.5))
    launch.launch(by_hash, tmp_path / "by_hash", table.STAGES)
    as_table = config(tmp_path / "by_hash/patches/table.csv")
    launch.launch(as_table, tmp_path / "by_table", table.STAGES)
    assert shas(tmp_path / "by_table") == shas(tmp_path / "by_hash")


def test_what_a_table_says_anew_is_cut_anew(tmp_path, slides):
    workdir = tmp_path / "run"
    launch.launch(config(slides), workdir, table.STAGES)
    before = shas(workdir)
    slides.write_text(slides.read_text().replace("slides/half.tiff,0.25", "slides/half.tiff,0.5"))
    differs = "(inputs.table: 1 of 4 slides differ: half.tiff: mpp 0.25 → 0.5); choose"
    with pytest.raises(stage.WorkdirError, match="force=patches") as caught:
        launch.launch(config(slides), workdir, table.STAGES)
    assert differs in str(caught.value)
    launch.launch(config(slides, ("force", "patches")), workdir, table.STAGES)
    after = shas(workdir)
    assert after["test"] == before["test"]
    assert after["train"] != before["train"]


def test_a_changed_table_is_seen_by_later_commands(tmp_path, slides):
    """What was trained on must not be called held out afterwards."""
    workdir = tmp_path / "run"
    launch.launch(config(slides), workdir, table.STAGES)
    text = slides.read_text()
    swapped = text.replace(",train", ",?").replace(",test", ",train").replace(",?", ",test")
    slides.write_text(swapped)
    later = config(slides, ("stages", "encoder"))
    with pytest.raises(
        ValueError, match="must say what it said when stage 'patches' was done"
    ) as caught:
        launch.launch(later, workdir, table.STAGES)
    assert "got another table (3 of 4 slides differ: half.tiff: split " in str(caught.value)
    assert 'half.tiff: split "train" → "test"' in str(caught.value)
    slides.write_text(text)
    made = schema.build(run_config.RunConfig, later)
    assert not list(table_changes.found(made, folders_lib.Folders.of(made, workdir)))
    # A job that only reads what was made may run where the table is not.
    slides.unlink()
    assert not list(table_changes.found(made, folders_lib.Folders.of(made, workdir)))


def test_a_table_that_is_moved_goes_on(tmp_path, slides):
    """It is known by what it says, wherever it stands and however it is written."""
    workdir = tmp_path / "run"
    launch.launch(config(slides), workdir, table.STAGES)
    before, entries = shas(workdir), sorted((workdir / "archive").iterdir())
    folder = ("data.folder", str(slides.parent))
    moved = tmp_path / "elsewhere, once/lists.tsv"
    moved.parent.mkdir()
    moved.write_text(slides.read_text().replace(",", "\t"))
    launch.launch(config(moved, folder), workdir, table.STAGES)
    slides.unlink()
    launch.launch(config(moved, folder), workdir, table.STAGES)
    assert shas(workdir) == before
    assert sorted((workdir / "archive").iterdir()) == entries
    later = config(moved, folder, ("stages", "encoder"))
    made = schema.build(run_config.RunConfig, later)
    folders = folders_lib.Folders.of(made, workdir)
    assert not list(table_changes.found(made, folders))
    provenance.require(table.STAGES, "patches", made, folders, wanted_by="encoder")
    # Moved and changed: by what is said of a slide, and by the slides themselves.
    text = moved.read_text()
    for old, new in (("slides/half.tiff\t0.25", "slides/half.tiff\t0.5"),
                     ("slides/none.tiff", "slides/more.tiff")):  # fmt: skip
        assert old in text
        moved.write_text(text.replace(old, new))
        (line,) = table_changes.found(made, folders)
        assert line.startswith(f"{moved} must say what it said when stage 'patches' was done")
        with pytest.raises(ValueError, match="must say what it said"):
            launch.launch(later, workdir, table.STAGES)
        with pytest.raises(stage.WorkdirError, match="force=patches"):
            launch.launch(config(moved, folder), workdir, table.STAGES)
    # One that is not there may be that of the run alone.
    moved.unlink()
    (line,) = table_changes.found(made, folders)
    assert line == (
        f"config.data.slides must name a table that is there, or {slides} as when stage 'patches' "
        f"was done, got {moved}: no such file"
    )
    as_before = schema.build(run_config.RunConfig, config(slides, ("stages", "encoder")))
    assert not list(table_changes.found(as_before, folders))


def test_slides_that_a_table_named_are_not_those_of_a_folder(tmp_path, slides):
    workdir = tmp_path / "run"
    launch.launch(config(slides), workdir, table.STAGES)
    with pytest.raises(stage.WorkdirError, match=r"data\.slides: .*table\.csv' → "):
        launch.launch(config(slides.parent / "slides", ("data.mpp", 0.5)), workdir, table.STAGES)


def entries(archive):
    return {path.name for path in archive.iterdir() if path.is_dir()}


@pytest.mark.parametrize("first", ["table", "files"])
def test_a_scale_that_the_file_says_too_makes_the_same_entry(tmp_path, slides, first):
    """same.tiff says 0.5 by itself, half.tiff another scale than the table, quarter.png none."""
    archive = tmp_path / "archive"
    shared = ("data.archive", str(archive)), ("data.holdout.by", "area")
    slides.write_text("slide,mpp\nslides/same.tiff,0.5\nslides/half.tiff,0.25\n")
    by_table = config(slides, *shared)
    by_file = config(slides.parent / "slides/*.tiff", *shared)
    names = {"table": by_table, "files": by_file}
    other = {"table": "files", "files": "table"}[first]
    launch.launch(names[first], tmp_path / first, table.STAGES)
    before = entries(archive)
    assert len(before) == 2
    launch.launch(names[other], tmp_path / other, table.STAGES)
    (new,) = entries(archive) - before
    assert new.startswith("half.tiff")
    same = json.loads(next(archive.glob("same.tiff*/entry.json")).read_text())
    assert same["facts"]["native_mpp"] == 0.5
    # A scale that differs at all is another.
    slides.write_text("slide,mpp\nslides/same.tiff,0.5000001\n")
    launch.launch(config(slides, *shared), tmp_path / "near", table.STAGES)
    assert len(entries(archive)) == 4


def test_an_entry_that_has_its_own_name_already_is_used(tmp_path, slides, monkeypatch):
    """Of archives in which each scale that was given made an entry."""
    archive = tmp_path / "archive"
    shared = ("data.archive", str(archive)), ("data.holdout.by", "area")
    slides.write_text("slide,mpp\nslides/same.tiff,0.5\n")
    with monkeypatch.context() as patch:
        patch.setattr(own_scale, "said", lambda slide: None)
        launch.launch(config(slides, *shared), tmp_path / "old", table.STAGES)
    before = entries(archive)
    launch.launch(config(slides, *shared), tmp_path / "new", table.STAGES)
    assert entries(archive) == before
    made = schema.build(run_config.RunConfig, config(slides, *shared))
    (task,) = slide_source.tasks(made.data, archive)
    assert {task.folder.name} == before


def test_validation_without_records_is_refused(tmp_path, slides):
    Image.new("RGB", (512, 512), "white").save(slides.parent / "slides" / "quarter.png")
    values = config(slides, ("data.records.min_tissue", 0.5))
    with pytest.raises(slide_lib.SlideError, match="for the validation split"):
        launch.launch(values, tmp_path / "run", table.STAGES)


def test_marks_are_written_back_too(tmp_path, slides):
    keep = np.zeros((64, 96), np.uint8)
    keep[:32] = 255
    Image.fromarray(keep).save(tmp_path / "keep.png")
    lines = slides.read_text().splitlines()
    marked = [f"{lines[0]},mask", *(f"{line},keep.png" for line in lines[1:])]
    slides.write_text("\n".join(marked))
    tissue = ("data.records.min_tissue", 0.9)
    launch.launch(config(slides, tissue), tmp_path / "first", table.STAGES)
    written = tmp_path / "first/patches/table.csv"
    launch.launch(config(written, tissue), tmp_path / "again", table.STAGES)
    assert shas(tmp_path / "again") == shas(tmp_path / "first")
    assert json.loads((tmp_path / "first/patches/done.json").read_text())["facts"]["records"] == {
        "train": 12, "validation": 12, "test": 12,
    }  # fmt: skip
