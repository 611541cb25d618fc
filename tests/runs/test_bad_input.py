"""Whatever a user gets wrong ends in one line that names the file or the key."""

import errno
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import demo_slide, plan, records
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.workdir import record
from ssldiff_jax.stages import table

HEIGHT, WIDTH = 600, 640


def stained():
    """Pink to purple blobs, at 0.5 microns a pixel."""
    mix = np.random.default_rng(0).uniform(0, 1, (20, 20)).astype(np.float32)
    mix = np.asarray(Image.fromarray(mix).resize((WIDTH, HEIGHT)))[..., None]
    return np.round([225, 160, 200] - mix * [115, 90, 50]).astype(np.uint8)


def values_for(slides, *changes):
    config = tiny.get_config()
    config.stages, config.data.slides, config.data.mpp = "patches", str(slides), 0.5
    for key, value in changes:
        config.update_from_flattened_dict({key: value})
    return config.to_dict()


def patches(workdir, slides, *changes):
    launch.launch(values_for(slides, *changes), workdir, table.STAGES)
    return json.loads((workdir / "patches" / "done.json").read_text())["facts"]


def refusal(workdir, slides, *changes):
    """The line `main` would print."""
    with pytest.raises(launch.USER_ERRORS) as caught:
        patches(workdir, slides, *changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slide.png"
    Image.fromarray(stained()).save(path)
    return path


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def test_good_slide_is_used(workdir, slide):
    facts = patches(workdir, slide)
    assert facts["slides"] == {"0": "slide.png"}
    assert facts["regions"] == 2
    assert facts["records"]["train"] > facts["records"]["test"] > 0


def test_no_slide_matches(workdir, tmp_path):
    assert "nothing*.svs" in refusal(workdir, tmp_path / "nothing*.svs")


def test_truncated_slide_beside_a_good_one_is_skipped(workdir, slide):
    whole = demo_slide.demo_slide().read_bytes()
    bad = slide.parent / "cut.svs"
    bad.write_bytes(whole[: len(whole) * 6 // 10])
    facts = patches(workdir, f"{slide},{bad}")
    assert list(facts["slides"].values()) == ["slide.png"]
    lines = (workdir / "patches" / "quarantine.jsonl").read_text().splitlines()
    skipped = [json.loads(line) for line in lines]
    assert [entry["slide"] for entry in skipped] == [str(bad)]
    assert "cut.svs" in skipped[0]["reason"]


def test_only_a_truncated_slide_is_refused(workdir, tmp_path):
    bad = tmp_path / "cut.svs"
    bad.write_bytes(demo_slide.demo_slide().read_bytes()[:300_000])
    assert "cut.svs" in refusal(workdir, bad)


def test_png_without_mpp_names_the_key(workdir, slide):
    message = refusal(workdir, slide, ("data.mpp", 0.0))
    assert "slide.png" in message
    assert "--config.data.mpp" in message


def test_white_slide_has_no_tissue(workdir, slide):
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(slide)
    message = refusal(workdir, slide)
    assert "no tissue" in message
    assert "slide.png" in message


@pytest.mark.parametrize("kind", ["RGBA", "gray", "gray16"])
def test_other_kinds_of_png(workdir, slide, kind):
    image, rgb = stained(), ("data.records.min_tissue", 0.25)
    if kind == "RGBA":
        Image.fromarray(np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])).save(slide)
        assert patches(workdir, slide, rgb)["regions"] == 2
        return
    gray = image[..., 1]
    gray = gray if kind == "gray" else gray.astype(np.uint16) * 257
    Image.fromarray(gray).save(slide)
    # Tissue is found by colour; without any it has to be asked for by another threshold.
    assert "no tissue" in refusal(workdir, slide)
    facts = patches(workdir.parent / "again", slide, ("data.records.min_tissue", 0.0))
    assert facts["regions"] == 2
    record = records.RecordSource(workdir.parent / "again" / "patches" / "records", "train")[0]
    assert np.ptp(record.astype(int), axis=-1).max() <= 2
    assert record.std() > 3


def test_record_smaller_than_a_patch(workdir, slide):
    message = refusal(workdir, slide, ("data.records.record_px", 70))
    assert "config.data.records.record_px" in message
    assert "record_px=70, patch_px=64, context_px=8" in message
    assert not workdir.exists()


def test_record_smaller_than_an_encoder_crop(workdir, slide):
    """The encoder crops image_px + shift_px: known before hours of other stages."""
    message = refusal(workdir, slide, ("encoder.model.shift_px", 128))
    assert "shift_px" in message


@pytest.mark.parametrize(
    ("key", "value"), [("mesh.data", 3), ("mesh.rules", ("kernel$",)), ("data.mpp", -0.5)]
)
def test_bad_value_names_its_key(workdir, slide, key, value):
    assert key.split(".")[1] in refusal(workdir, slide, (key, value))


def test_workdir_of_another_config(workdir, slide):
    patches(workdir, slide)
    before = (workdir / "config.json").read_text()
    with pytest.raises(stage.WorkdirError, match=r"data\.records\.stride_px: 80 → 40"):
        patches(workdir, slide, ("data.records.stride_px", 40))
    # What is refused leaves the run as it was: Generator.load reads this file.
    assert (workdir / "config.json").read_text() == before


@pytest.mark.parametrize("name", ["quarantine.jsonl", "regions.json", "region_1.png", "done.json"])
def test_full_disk_leaves_no_half_file(workdir, slide, monkeypatch, name):
    replace = os.replace

    def no_space(source, target, **kwargs):
        if os.path.basename(target) == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target, **kwargs)

    monkeypatch.setattr(atomic.os, "replace", no_space)
    message = refusal(workdir, slide)
    assert name in message
    assert "No space left on device" in message
    assert not (workdir / "patches" / name).exists()
    half = {path.name for path in (workdir / "patches").glob(".*")} - {record.STOPWATCH}
    assert not half
    assert not (workdir / "patches" / "done.json").exists()
    monkeypatch.setattr(atomic.os, "replace", replace)
    assert patches(workdir, slide)["regions"] == 2  # goes on once there is room


def test_of_two_cases_one_is_held_out(workdir, slide):
    """By hash alone neither would be."""
    names = ("a.png", "b.png")
    assert not any(plan.is_held_out(name[0], 0.05) for name in names)
    for name in names:
        slide.with_name(name).write_bytes(slide.read_bytes())
    # The second file's pixels are those of the first unless they differ.
    Image.fromarray(stained()[::-1]).save(slide.with_name("b.png"))
    by_case = (("data.holdout.by", "case"), ("data.holdout.fraction", 0.05),
               ("data.engine.processes", 1))  # fmt: skip
    found = patches(workdir, ",".join(str(slide.with_name(name)) for name in names), *by_case)
    assert found["records"]["train"] > 0
    assert found["records"]["test"] > 0
    message = refusal(workdir.parent / "one", slide.with_name("a.png"), *by_case)
    assert "holdout.by=area" in message


def test_what_a_tool_is_told_is_not_the_runs(workdir, slide):
    patches(workdir, slide)
    kept = [(workdir / name).read_text() for name in ("config.json", "environment.json")]
    launch.launch(
        values_for(slide, ("stages", "verify"), ("sample.window_batch", 5)), workdir, table.STAGES
    )
    assert [(workdir / n).read_text() for n in ("config.json", "environment.json")] == kept
    assert (workdir / "verify" / "done.json").exists()


@pytest.mark.parametrize("key", ["workdir", "models", "archive"])
def test_a_bucket_is_no_folder_from_python_either(workdir, slide, tmp_path, monkeypatch, key):
    values, empty = values_for(slide), tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    if key == "workdir":
        workdir = pathlib.Path("gs://bucket/run")
    else:
        (values if key == "models" else values["data"])[key] = "gs://bucket/run"
    with pytest.raises(schema.ConfigError, match=r"folder that all hosts share.*gs://bucket/run"):
        launch.launch(values, workdir, table.STAGES)
    assert list(empty.iterdir()) == []
    assert not workdir.exists()
