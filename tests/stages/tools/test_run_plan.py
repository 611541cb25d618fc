"""The tool `plan` against what steps of real runs then report and write."""

import json

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.runs import launch
from ssldiff_jax.stages import table


def planned(workdir, config=None, **changes):
    """What the tool writes of a config, by default configs/tiny.py."""
    config = config or tiny.get_config()
    config.update_from_flattened_dict({"stages": "plan", **changes})
    launch.launch(config.to_dict(), workdir, table.STAGES)
    return read(workdir / "plan" / "results.json")


def read(path):
    return json.loads(path.read_text())


def size(folder, *patterns):
    return sum(
        p.stat().st_size for pattern in patterns for p in folder.glob(pattern) if p.is_file()
    )


def row_of(results, name):
    (row,) = [row for row in results["stages"] if row["stage"] == name]
    return row


def count(results, name, what):
    """A count that must be exact."""
    number = row_of(results, name)["counts"][what]
    assert number["basis"] == "exact", (name, what, number)
    return number["value"]


def written(results, name, what):
    return row_of(results, name)["writes"][what]


def near(number, actual, part=0.02):
    assert number["value"] == pytest.approx(actual, rel=part), number


def within(number, actual):
    """Between the bounds that an estimate gives."""
    assert number["basis"] == "estimate"
    assert number["low"] <= actual <= number["high"], (number, actual)


@pytest.fixture(scope="module")
def plan_of_tiny(tmp_path_factory):
    return planned(tmp_path_factory.mktemp("plan"))


def test_records_are_counted_and_weighed_before_they_are_cut(workdir, plan_of_tiny):
    facts = read(workdir / "patches" / "done.json")["facts"]
    for split in ("train", "test"):
        assert count(plan_of_tiny, "patches", f"records {split}") == facts["records"][split]
    assert count(plan_of_tiny, "patches", "regions") == facts["regions"]
    stored = size(workdir / "archive", "*/*.array_record", "*/*.npy")
    stored += size(workdir / "patches" / "records", "places-*.npy")
    near(written(plan_of_tiny, "patches", "records"), stored)


def test_stores_are_as_large_as_they_become(workdir, plan_of_tiny):
    for name in ("embeddings", "latents"):
        assert count(plan_of_tiny, name, name) == read(workdir / name / "manifest.json")["count"]
        actual = size(workdir / name, "*.array_record")
        near(written(plan_of_tiny, name, name), actual)
    grids = row_of(plan_of_tiny, "grids")
    for split in ("train", "test"):
        folder = workdir / "grids" / split
        assert grids["counts"][f"grids {split}"]["value"] == read(folder / "manifest.json")["count"]
        near(grids["writes"][f"grids {split}"], size(folder, "*.array_record"))
    near(grids["writes"]["whitening"], size(workdir / "grids", "whitening.npz"))


@pytest.mark.parametrize("name", ["encoder", "autoencoder", "denoiser", "judge", "prior"])
def test_trainings_are_as_long_and_as_large_as_they_become(workdir, plan_of_tiny, name):
    last = json.loads((workdir / name / "metrics.jsonl").read_text().splitlines()[-1])
    assert count(plan_of_tiny, name, "steps") == last["step"]
    total = (workdir / name / "parameters.txt").read_text().split("Total: ")[1].split()[0]
    assert count(plan_of_tiny, name, "parameters") == int(total.replace(",", ""))
    saved = sorted((workdir / name / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    assert count(plan_of_tiny, name, "checkpoints kept") == len(saved)
    number = written(plan_of_tiny, name, "checkpoints")
    # The first is of moments that are zero still, and the prior's last layers are after four steps.
    if name != "prior":
        near({"value": number["value"] / len(saved)}, size(saved[-1], "**/*"))
    within(number, size(workdir / name / "checkpoints", "**/*"))


def test_images_take_the_calls_that_they_report(workdir, plan_of_tiny):
    images = [read(path) for path in sorted((workdir / "sample").glob("image_*.json"))]
    assert count(plan_of_tiny, "sample", "large images") == len(images)
    for what, key in (("UNet calls", "unet_forwards"), ("decodes", "decoder_calls")):
        assert count(plan_of_tiny, "sample", what) == sum(image[key] for image in images)
    for suffix in ("png", "tif"):
        within(
            written(plan_of_tiny, "sample", f"images {suffix}"),
            size(workdir / "sample", f"image_*.{suffix}"),
        )


def test_patches_of_the_evaluation_are_those_that_are_written(workdir, plan_of_tiny):
    folder = workdir / "evaluate"
    generated = len(list((folder / "generated").glob("*.png")))
    assert count(plan_of_tiny, "evaluate", "patches regenerated") == generated
    searched = np.load(next((folder / "training").glob("judge-*.npy"))).shape[0]
    assert count(plan_of_tiny, "evaluate", "training patches searched") == searched
    values = sum(np.load(path).nbytes for path in folder.glob("**/*.npy")
                 if path.parent.name in ("features", "training"))  # fmt: skip
    assert written(plan_of_tiny, "evaluate", "features") == {"value": values, "basis": "exact"}
