"""The tool `plan` against what steps of real runs then report and write."""

import json
import shutil

import h5py
import numpy as np
import pytest
import rasterio
from PIL import Image

from configs import naip, tiny
from ssldiff_jax.data import demo_slide
from ssldiff_jax.formats import shards
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib
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


def test_every_step_is_planned_in_units_that_are_said(plan_of_tiny):
    names = [row["stage"] for row in plan_of_tiny["stages"]]
    assert names == [name for name, row in table.STAGES.items() if not row.tool]
    assert plan_of_tiny["total"]["unknown"] == []
    keys = {key for row in plan_of_tiny["stages"] for key in row} - {"stage", "state", "rate"}
    assert keys - set(plan_of_tiny["about"]) == {"flops"}
    total = sum(row["seconds"]["value"] for row in plan_of_tiny["stages"])
    assert plan_of_tiny["total"]["seconds"]["value"] == pytest.approx(total, rel=1e-4)


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
        # Names and places of arrays, which Orbax packs now so, now so, are a twentieth of 1 MB.
        near({"value": number["value"] / len(saved)}, size(saved[-1], "**/*"), part=0.06)
    within(number, size(workdir / name / "checkpoints", "**/*"))


def test_tokens_of_cells_are_planned_where_there_are_some(tmp_path, plan_of_tiny):
    row = row_of(plan_of_tiny, "tokens")
    assert (row["counts"], row["writes"], row["seconds"]["value"]) == ({}, {}, 0)
    results = planned(tmp_path, **{"embeddings.tokens_per_side": 2})
    width, values = 32, tiny.get_config().tokens
    # Halves of four tokens, and the embedding beside them in single precision.
    stored = shards.file_bytes(64, 4 * width * 2 + width * 4)
    near(written(results, "embeddings", "embeddings"), stored)
    assert count(results, "tokens", "steps") == values.train.num_steps
    assert count(results, "tokens", "examples") == values.train.num_steps * values.train.batch_size
    white = {"mean": (width,), "matrix": (width, width), "inverse": (width, width)}
    np.savez(tmp_path / "white.npz", **{n: np.zeros(s, np.float32) for n, s in white.items()})
    near(written(results, "tokens", "whitening"), 2 * (tmp_path / "white.npz").stat().st_size)
    of_prior, of_tokens = (row_of(results, "imagine")["work"][f"flops {name} float32"]["value"]
                           for name in ("prior", "tokens"))  # fmt: skip
    assert of_prior > 0
    assert of_tokens > 0
    assert "flops tokens float32" not in row_of(plan_of_tiny, "imagine")["work"]


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
                 if path.parent.name in ("features", "training", "examples"))  # fmt: skip
    assert written(plan_of_tiny, "evaluate", "features") == {"value": values, "basis": "exact"}


def cut(workdir, config, *stages):
    """Run stages; returns what was cut, by split."""
    config.update_from_flattened_dict({"stages": ",".join(("patches", *stages))})
    launch.launch(config.to_dict(), workdir, table.STAGES)
    return read(workdir / "patches" / "done.json")["facts"]


def records_bytes(workdir):
    stored = size(workdir / "archive", "*/*.array_record", "*/*.npy")
    return stored + size(workdir / "patches" / "records", "places-*.npy")


def agrees(tmp_path, config, *stages):
    """A plan, and what was cut, which must be what it says; returns both."""
    results = planned(tmp_path / "plan", config.copy_and_resolve_references())
    facts = cut(tmp_path / "run", config, *stages)
    for split, number in facts["records"].items():
        assert count(results, "patches", f"records {split}") == number, split
    assert count(results, "patches", "regions") == facts["regions"]
    assert count(results, "patches", "unusable") == facts["quarantined"]
    near(written(results, "patches", "records"), records_bytes(tmp_path / "run"))
    return results


@pytest.fixture(scope="module")
def tissue():
    slide = slide_lib.open_slide(demo_slide.demo_slide())
    yield slide.read_region(300, 300, 1024, 768, mpp=0.5)
    slide.close()


def slides_config(folder, **changes):
    config = tiny.get_config()
    config.data.slides, config.data.mpp = str(folder), 0.0
    config.data.holdout.by, config.data.regions.count = "case", 1
    config.data.records.record_px = config.data.records.stride_px = 128
    config.data.engine.processes = 1
    config.update_from_flattened_dict(changes)
    return config


def write_slides(folder, tissue, count):
    folder.mkdir()
    for i in range(count):
        height, width = 512 + 64 * (i % 5), 768 - 64 * (i % 3)
        pixels = np.roll(tissue, 96 * i, axis=1)[:height, :width]
        name = f"TCGA-A{i % 3}-{i:04d}-1.tif"
        pyramid.write_pyramid(folder / name, pixels, pyramid.Scale(0.5))


def test_slides_of_cases_copies_and_broken_ones(tmp_path, tissue):
    """And a second magnification, whose records are splits of their own."""
    folder = tmp_path / "slides"
    write_slides(folder, tissue, 5)
    shutil.copy(folder / "TCGA-A0-0000-1.tif", folder / "TCGA-B0-0000-2.tif")
    (folder / "TCGA-C0-0000-1.svs").write_bytes(b"no slide")
    config = slides_config(folder, **{"data.records.scales": (2.0,), "data.holdout.fraction": 0.4})
    results = agrees(tmp_path, config)
    assert results["slides"]["named"] == results["slides"]["looked_at"] == 7
    assert set(results["slides"]["reasons"]) == {"TCGA-B0-0000-2.tif", "TCGA-C0-0000-1.svs"}
    assert count(results, "patches", "records train_x2") > 0


def test_of_many_slides_some_are_looked_at(tmp_path, tissue):
    """The interval holds what all of them give."""
    folder = tmp_path / "slides"
    write_slides(folder, tissue, 14)
    config = slides_config(folder, **{"data.holdout.fraction": 0.3, "plan.num_slides": 5})
    results = planned(tmp_path / "plan", config.copy_and_resolve_references())
    facts = cut(tmp_path / "run", config)
    assert results["slides"]["looked_at"] == 5
    row = row_of(results, "patches")
    every = sum(row["counts"][f"records {split}"]["value"] for split in ("train", "test"))
    low = sum(row["counts"][f"records {split}"]["low"] for split in ("train", "test"))
    high = sum(row["counts"][f"records {split}"]["high"] for split in ("train", "test"))
    assert low <= sum(facts["records"].values()) <= high
    assert low < every < high
    within(row["writes"]["records"], records_bytes(tmp_path / "run"))
    assert row_of(results, "embeddings")["counts"]["embeddings"]["value"] == 64  # as configured


def test_a_list_of_labelled_patches(tmp_path, tissue):
    """A picture that is there twice, turned, and one of another size are none of them."""
    for i in range(40):
        kind = tmp_path / "patches" / ("tumour" if i % 2 else "stroma")
        kind.mkdir(parents=True, exist_ok=True)
        top, left = 96 * (i // 8), 88 * (i % 8)
        Image.fromarray(tissue[top : top + 80, left : left + 80]).save(kind / f"case{i}_x.png")
    Image.fromarray(tissue[80:0:-1, :80]).save(kind / "turned.png")
    Image.fromarray(np.rot90(tissue[:80, :80]).copy()).save(kind / "again.png")
    Image.fromarray(tissue[:64, :64]).save(kind / "small.png")
    config = slides_config(
        f"folder:{tmp_path / 'patches'}",
        **{"data.mpp": 0.5, "data.holdout.case_regex": r"case\d+|\w+$", "evaluate.classes": "",
           "prior.conditions.measure": "none"},
    )  # fmt: skip
    config.data.records.record_px = config.data.records.stride_px = 80
    config.data.holdout.fraction = 0.3
    results = agrees(tmp_path, config)
    assert count(results, "sample", "large images") == 0
    # Grids of patches that have no neighbours are of one cell.
    cells = row_of(results, "grids")["counts"]["patches embedded"]["value"]
    assert cells == config.prior.grids.count + config.prior.grids.count_test


def test_scenes_of_four_bands(tmp_path):
    """Labels of land cover: three classes, each with its part of the whole and of four quarters."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (40, 30, 4), dtype=np.uint8)
    values = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    profile = {
        "driver": "GTiff", "height": 640, "width": 480, "count": 4, "dtype": "uint8",
        "crs": "EPSG:32614", "transform": rasterio.Affine(1, 0, 485_000, 0, -1, 5_209_000),
    }  # fmt: skip
    (tmp_path / "scenes").mkdir()
    with rasterio.open(tmp_path / "scenes" / "scene.tif", "w", **profile) as file:
        file.write(np.moveaxis(values, -1, 0))
    config = slides_config(tmp_path / "scenes", **{"evaluate.classes": "landcover"})
    naip.every_square_counts(config.data)
    config.data.holdout.by, config.data.holdout.fraction = "area", 0.4
    config.prior.conditions.measure = "landcover"
    results = agrees(tmp_path, config)
    grids = config.prior.grids
    labels = 3 * 5
    width = config.encoder.model.vit.width
    each = 2 * (4 * width + 4 + 2 * labels)
    written_grids = row_of(results, "grids")["writes"]["grids train"]["value"]
    assert written_grids == shards.file_bytes(grids.count, each)


def test_embeddings_computed_elsewhere(tmp_path):
    """Of the demo's slide, as CLAM writes them."""
    corners = np.array([(x, y) for y in range(300, 2900, 64) for x in range(200, 2000, 64)])
    (tmp_path / "h5").mkdir()
    values = np.random.default_rng(0).standard_normal((len(corners), 24), np.float32)
    with h5py.File(tmp_path / "h5" / "cmu_small_region.h5", "w") as file:
        file["coords"], file["features"] = corners, values
        file["coords"].attrs["patch_size"] = 64
    config = tiny.get_config()
    config.data.records.record_px = 80
    config.data.crops.dihedral, config.data.crops.num_crops = False, 0
    config.encoder.model.shift_px = config.judge.model.shift_px = 0
    config.autoencoder.loss.perceptual_weight = 0.0
    config.sample.conditioning = "interpolated"
    config.embeddings.source, config.embeddings.check = str(tmp_path / "h5"), "none"
    results = agrees(tmp_path, config, "encoder", "embeddings")
    folder = tmp_path / "run" / "embeddings"
    assert count(results, "embeddings", "embeddings") == read(folder / "manifest.json")["count"]
    near(written(results, "embeddings", "embeddings"), size(folder, "*.array_record"))
    assert row_of(results, "prior")["counts"] == {}
    # The token that conditions: 24 numbers to the width of the context, for which no file stands.
    other = tiny.get_config()
    token = (24 - other.encoder.model.vit.width) * other.denoiser.unet.context_dim
    assert count(results, "denoiser", "parameters") == 196_260 + token


def test_what_was_cut_is_counted_where_slides_are_gone(workdir, tmp_path):
    """A run that goes on needs no slides to be planned."""
    shutil.copytree(workdir / "patches", tmp_path / "patches", symlinks=True)
    changes = {"data.slides": str(tmp_path / "gone"), "data.crops.num_crops": 0}
    with pytest.raises(launch.REFUSALS, match="gone"):
        planned(tmp_path, **changes)
    results = read(tmp_path / "plan" / "results.json")
    facts = read(workdir / "patches" / "done.json")["facts"]
    assert row_of(results, "patches")["state"] == "done"
    assert count(results, "embeddings", "embeddings") == facts["records"]["train"]
    assert count(results, "sample", "large images") == facts["regions"]


def test_what_would_be_refused_is_said_beside_the_plan(tmp_path):
    config = tiny.get_config()
    config.update_from_flattened_dict({"stages": "plan", "plan.devices": "h100:3"})
    with pytest.raises(launch.REFUSALS) as caught:
        launch.launch(config.to_dict(), tmp_path, table.STAGES)
    results = read(tmp_path / "plan" / "results.json")
    assert str(caught.value).splitlines() == results["refusals"]
    batch = "config.denoiser.train.batch_size must be a multiple of 3"
    assert sum(batch in line for line in results["refusals"]) == 1
    assert "are not here" in results["warnings"][0]
    assert results["devices"] == {
        "kind": "NVIDIA H100", "count": 3, "memory": 80 * 10**9, "are_here": False,
        "mesh": {"data": 1, "fsdp": 3, "model": 1},
    }  # fmt: skip


def test_state_that_is_split_over_devices_is_a_part_on_each(tmp_path, plan_of_tiny):
    results = planned(tmp_path, **{"plan.devices": "h100:8"})
    alone = row_of(plan_of_tiny, "denoiser")["host"]["state"]["value"]
    each = row_of(results, "denoiser")["device"]["state"]["value"]
    assert alone / 8 < each < alone / 4
    assert "not measured" in row_of(results, "denoiser")["rate"][0]


def test_a_run_is_planned_first_by_what_the_one_beside_it_took(workdir, tmp_path):
    """The steps of a run that was planned and is done are measurements for the next."""
    shutil.copytree(workdir, tmp_path / "first", symlinks=True)
    first = read(tmp_path / "first" / "plan" / "results.json")
    assert [row["stage"] for row in first["stages"]] == [
        name for name, row in table.STAGES.items() if not row.tool
    ]
    config = tiny.get_config()
    config.denoiser.train.num_steps = 4000
    results = planned(tmp_path / "second", config)
    row = row_of(results, "denoiser")
    assert "measured here: stage denoiser of first" in row["rate"][0]
    log = (workdir / "denoiser" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step_seconds"] for line in log]
    beside = max(read(workdir / "denoiser" / "done.json")["seconds"] - 4 * np.median(steps), 0)
    assert row["seconds"]["value"] == pytest.approx(4000 * np.median(steps) + beside, rel=1e-3)
    # Nothing else was of this size but what is the same.
    assert "measured here" in row_of(results, "latents")["rate"][0]
