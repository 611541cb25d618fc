"""Records as a folder of PNG files: the pixels that are stored, each once, read back as a list."""

import csv
import dataclasses
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import patch_list, records
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools import patch_images

pytestmark = pytest.mark.e2e


def write(run, folder, at):
    """The tool on a run, into a folder; `at` is where it keeps its results."""
    config = json.loads(json.dumps(stored_config.of_run(run)))
    config["patch_images"] = {"folder": str(folder)}
    context = stage.Context(schema.build(run_config.RunConfig, config), run, None)
    return patch_images.run(context.at("patch_images", at))


def rows_of(folder):
    with open(folder / "patches.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_record_is_an_image_of_its_pixels(workdir, tmp_path):
    folder = tmp_path / "images"
    facts = write(workdir, folder, tmp_path / "results")
    rows = rows_of(folder)
    assert set(os.listdir(folder)) == {"train", "test", "patches.csv", "patches.json"}
    for split in ("train", "test"):
        source = records.RecordSource(workdir / "patches" / "records", split)
        own = [row for row in rows if row["file"].startswith(f"{split}/")]
        assert len(own) == len(source) == facts["images"][split]
        assert len(os.listdir(folder / split)) == len(source)
        for number in range(0, len(source), 7):
            row, (_, top, left, _) = own[number], source.places[number].tolist()
            assert row["file"] == f"{split}/cmu_small_region_{left}_{top}.png"
            assert (int(row["x"]), int(row["y"]), float(row["mpp"])) == (left, top, 0.5)
            assert row["slide"] == "cmu_small_region.svs"
            stored = io.BytesIO(records.encoded_image(source.record(number)))
            with Image.open(folder / row["file"]) as found, Image.open(stored) as wanted:
                assert found.format == "PNG"
                np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    back = patch_list.open_list(f"folder:{folder}")
    assert sorted(back.name(i) for i in range(len(back))) == sorted(row["file"] for row in rows)
    number = next(i for i in range(len(back)) if back.name(i) == rows[3]["file"])
    np.testing.assert_array_equal(
        back.read(number), np.asarray(Image.open(folder / rows[3]["file"]))
    )


def test_what_is_there_stays_and_nothing_is_deleted(workdir, tmp_path):
    folder = tmp_path / "images"
    write(workdir, folder, tmp_path / "results")
    first, second = (folder / row["file"] for row in rows_of(folder)[:2])
    before, pixels = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    (folder / "train" / "mine.txt").write_text("notes")
    table_before = (folder / "patches.csv").read_bytes()
    facts = write(workdir, folder, tmp_path / "results")
    assert facts["were_there"] == sum(facts["images"].values()) - 1
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == pixels
    assert (folder / "train" / "mine.txt").read_text() == "notes"
    assert (folder / "patches.csv").read_bytes() == table_before


@pytest.fixture
def listed(tmp_path):
    """A run on patches whose names repeat between classes."""
    folder = tmp_path / "patches"
    for label in ("a b", "c"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            seed = 100 * (label == "c") + number
            pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
            image = Image.fromarray(pixels).resize((80, 80), Image.Resampling.BICUBIC)
            image.save(folder / label / f"{number}.png")
    c = tiny.get_config()
    c.data.slides, c.data.records.record_px, c.data.mpp = f"folder:{folder}", 80, 0.0
    c.data.holdout.by, c.data.holdout.case_regex = "case", ".+"
    c.data.holdout.fraction = 0.3
    c.data.regions.rows = c.data.regions.cols = 1
    c.stages = "patches"
    launch.launch(c.to_dict(), tmp_path / "run", table.STAGES)
    return tmp_path / "run"


def test_patches_of_one_name_stay_apart_in_the_folders_of_their_classes(listed, tmp_path):
    facts = write(listed, tmp_path / "images", tmp_path / "results")
    rows = rows_of(tmp_path / "images")
    assert len(rows) == len({row["file"] for row in rows}) == sum(facts["images"].values()) == 16
    assert {row["label"] for row in rows} == {"a b", "c"}
    for row in rows:
        split, label, name = row["file"].split("/")
        stem = row["slide"].rpartition("/")[2].removesuffix(".png")
        assert split in facts["images"]
        assert label == {"a b": "a-b", "c": "c"}[row["label"]]
        assert name == f"{row['label']}_{stem}_0_0.png"
    back = patch_list.open_list(f"folder:{tmp_path / 'images' / 'train'}")
    assert {back.label(i) for i in range(len(back))} == {"a-b", "c"}


def test_a_folder_of_something_else_is_refused_in_a_line(workdir, listed, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "holiday.png").write_bytes(b"mine")
    with pytest.raises(schema.ConfigError, match=r"must be new or empty, got .*own with files"):
        write(workdir, own, tmp_path / "results")
    assert [path.name for path in own.iterdir()] == ["holiday.png"]
    write(listed, tmp_path / "images", tmp_path / "results")
    with pytest.raises(schema.ConfigError, match=r"must be new or of these records, got .*images"):
        write(workdir, tmp_path / "images", tmp_path / "results")
    config = schema.build(run_config.RunConfig, stored_config.of_run(workdir))
    section = dataclasses.replace(config.patch_images, folder="")
    config = dataclasses.replace(config, patch_images=section)
    with pytest.raises(schema.ConfigError, match=r"patch_images\.folder must name a folder"):
        patch_images.run(stage.Context(config, workdir, None))
