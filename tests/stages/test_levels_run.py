"""A run of two magnifications: what it stores, how it is evaluated, what it generates and exports,
and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile

import ssldiff_jax
from ssldiff_jax.core import rng, schema
from ssldiff_jax.data import crop_reader, crops, demo_slide, plan, store
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import held_out
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import provenance, stored_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.slides import slide as slide_lib
from ssldiff_jax.stages import table

pytestmark = pytest.mark.e2e
LEVELS = ("--config.data.records.scales=(2.0,)", "--config.data.levels=(1.0,2.0)")
STEPS = ("patches,judge,encoder,embeddings,autoencoder,latents,denoiser,sample,evaluate,report,"
         "export")  # fmt: skip
AT_2 = "--config.sample.level=2"


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    """A tiny run of levels 1 and 2, sampled at level 2; and an image of level 1."""
    folder = tmp_path_factory.mktemp("levels") / "run"
    regions = ("--config.data.regions.rows=4", "--config.data.regions.cols=4")
    done = command(folder, *LEVELS, *regions, AT_2, f"--config.stages={STEPS}")
    assert done.returncode == 0, done.stderr[-3000:]
    name = "--config.generate.name=first"
    done = command(folder, *LEVELS, *regions, "--config.stages=generate", name)
    assert done.returncode == 0, done.stderr[-3000:]
    # Level 2 of a part of a slide, and level 1 held to it, in one command.
    slide = folder.parent / "mine.png"
    pyramid.write_png(slide, read_demo(1000, 800, 256, 384))
    mine = (
        f"--config.generate.reference={slide}", "--config.generate.mpp=0.5",
        "--config.generate.region=(64,128,192,256)", "--config.generate.name=two",
        "--config.generate.coarse.sample=level=2",
    )  # fmt: skip
    done = command(folder, *LEVELS, *regions, "--config.stages=generate", *mine)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def read_demo(*box):
    slide = slide_lib.open_slide(demo_slide.demo_slide())
    return slide.read_region(*box, mpp=0.5)


@pytest.fixture(scope="module")
def model(run):
    return ssldiff_jax.Generator.load(run)


def test_embeddings_and_latents_are_of_both_levels_alike(run, model):
    embeddings, latents = (store.Store(run / name) for name in ("embeddings", "latents"))
    assert embeddings.facts["crops_of_levels"] == [32, 32]
    assert len(embeddings) == len(latents) == 64
    assert embeddings.read("level", 64)[:, 0].tolist() == [1] * 32 + [2] * 32
    config = model.config
    for number, first in ((0, 0), (1, 32)):
        split = plan.split_at("train", (1.0, 2.0)[number])
        source = records_lib.RecordSource(run / "patches" / "records", split)
        each = crops.CropTable(
            len(source),
            config.data.records.record_px,
            config.data.crops.of_level(number, 2),
            rng.seed_of(config.seed, "crops", number),
        )
        patches = crop_reader.CropReader(source, each).patches([0, 5, 31])
        stored = embeddings.batch([first, first + 5, first + 31])["embedding"]
        np.testing.assert_allclose(stored, model.encoder(patches), atol=1e-4)


def test_a_coarser_region_shows_the_same_ground(run):
    for i in range(2):
        fine, coarse = (
            pyramid.read_image(run / "patches" / f"{name}.png").astype(float)
            for name in (f"region_{i}", f"region_{i}_x2")
        )
        assert (fine.shape[:2], coarse.shape[:2]) == ((256, 256), (128, 128))
        means = fine.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
        # Places of the coarser level are whole pixels: they may be half of one apart.
        others = (coarse, np.roll(coarse, 3, axis=0))
        alike, moved = (np.corrcoef(means.ravel(), x.ravel())[0, 1] for x in others)
        assert alike > max(0.9, moved + 0.1)


def test_images_are_of_the_level_that_was_asked_for(run, model):
    assert pyramid.read_image(run / "sample" / "image_0.png").shape == (128, 128, 3)
    assert (model.level, model.mpp) == (2.0, pytest.approx(1.0))
    for path, px, mpp in (
        (run / "sample" / "image_0.tif", 128, 1.0),
        (run / "generate" / "first" / "image.tif", 256, 0.5),
    ):
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert page.shape[:2] == (px, px)
            # Pixels a centimetre.
            per_cm = page.tags["XResolution"].value
            assert per_cm[1] / per_cm[0] * 1e4 == pytest.approx(mpp, rel=1e-3)


def test_two_scales_of_one_model_in_one_command(run):
    folder = run / "generate" / "two"
    coarse, image = (
        pyramid.read_image(folder / f"{name}.png").astype(np.float32)
        for name in ("coarse", "image")
    )
    assert (coarse.shape, image.shape) == ((96, 128, 3), (192, 256, 3))
    shrunk = image.reshape(96, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(shrunk.ravel(), coarse.ravel())[0, 1] > 0.9


def test_every_level_is_evaluated(run):
    results = atomic.read_json(run / "evaluate" / "results.json")
    assert list(results["levels"]) == ["1", "2"]
    # Large images are of level 2: its patches are those of all other figures.
    assert results["levels"]["2"] == results["patches"]
    for by in results["levels"].values():
        assert list(by) == ["judge", "encoder"]
        assert np.isfinite(by["judge"]["frechet"]["uncorrected"])
    first, second = (results["levels"][n]["judge"]["frechet"]["uncorrected"] for n in "12")
    assert first != second
    assert len(list((run / "evaluate" / "level_1" / "generated").glob("*.png"))) == 12
    page = (run / "report" / "index.html").read_text()
    assert "Metrics by level" in page
    metrics = atomic.read_json(run / "report" / "metrics.json")
    assert metrics["data"] == {"lattices": [[2, 2], [2, 2]], "patch_px": 64, "mpp": 1.0}


def test_an_export_generates_the_same_pixels_at_both_levels(run, model):
    again = ssldiff_jax.Generator.load(run / "export")
    grid = np.random.default_rng(0).normal(size=(1, 2, model.embedding_dim)).astype(np.float32)
    images = [m.at_level(level).generate(grid).image for m in (model, again) for level in (1, 2)]
    np.testing.assert_array_equal(images[0], images[2])
    np.testing.assert_array_equal(images[1], images[3])
    level = again.trained.params["level"]["table"]
    np.testing.assert_array_equal(level, np.asarray(model.trained.params["level"]["table"]))
    # Four steps from zeros: what they learnt is small, but each level's its own.
    assert np.abs(level).max() > 0
    assert not np.array_equal(level[0], level[1])


def test_a_region_without_the_level_is_refused_in_one_line(run, model):
    config = model.config
    moved = with_a_third_level(config)
    with pytest.raises(folders_lib.WorkdirError) as caught:
        held_out.read(moved, folders_lib.Folders.of(config, run))
    line = str(caught.value)
    assert "\n" not in line
    assert "region_0_x4.png must show a region at level 4, got no such file" in line
    assert "regions must hold 2 × 2 cells of it (config.data.regions has rows=4, cols=4)" in line


def with_a_third_level(config):
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    values["data"]["records"]["scales"], values["data"]["levels"] = [2.0, 4.0], [1.0, 2.0, 4.0]
    values["sample"]["level"] = 4.0
    return schema.build(run_config.RunConfig, values)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.data.levels=(1.0,8.0)",), "config.data.levels must be 1 or of those that "
         "records have, config.data.records.scales=(), got 8"),
        ((*LEVELS, "--config.sample.level=4"), "config.sample.level must be 0 or one of "
         "config.data.levels=(1, 2), got 4"),
        (("--config.denoiser.conditioner.name=transformer",
          "--config.denoiser.unet.conditioning=cross_attention",
          "--config.encoder.model.vit.patch_px=4", "--config.embeddings.tokens_per_side=16"),
         "with denoiser.conditioner.name=transformer config.embeddings.tokens_per_side must be at "
         "most 8 (64 embeddings), got 16 (256 embeddings)"),
        (("--config.denoiser.conditioner.name=transformer",),
         "with denoiser.conditioner.name=transformer config.denoiser.unet.conditioning must be "
         "cross_attention, got scale_shift"),
        (("--config.denoiser.conditioner.name=transformer",
          "--config.denoiser.unet.conditioning=cross_attention",
          "--config.denoiser.conditioner.of=finest", "--config.sample.conditioning=interpolated"),
         "config.denoiser.conditioner.of must be own where a denoiser is trained, got finest, "
         "which is of published weights: Generator.load reads them"),
    ],
)  # fmt: skip
def test_levels_that_cannot_be_are_refused_in_one_line(refusal, tmp_path, flags, message):
    assert refusal(tmp_path / "run", *flags) == message


def test_other_levels_than_were_learnt_are_another_run(run, refusal):
    """A denoiser of two levels is not resumed as one of one; its records and regions stay."""
    flags = ("--config.data.records.scales=(2.0,)", "--config.data.regions.rows=4",
             "--config.data.regions.cols=4")  # fmt: skip
    line = refusal(run, *flags, "--config.stages=patches,encoder")
    assert "holds stage 'encoder' of another config (data.levels: [1.0, 2.0] → [1.0])" in line


def test_runs_of_before_there_were_levels_go_on(workdir, tmp_path):
    """Records without the keys are as their defaults: no stage is another's."""
    folder = tmp_path / "old"
    shutil.copytree(workdir, folder, symlinks=True, ignore=shutil.ignore_patterns("archive"))
    config = atomic.read_json(folder / "config.json")
    del config["data"]["levels"], config["sample"]["level"], config["denoiser"]["conditioner"]
    atomic.write_json(folder / "config.json", config)
    for path in folder.glob("*/stage.json"):
        noted = atomic.read_json(path)
        sections = noted["config"]
        sections.pop("data.levels", None)
        for name, key in (("denoiser", "conditioner"), ("sample", "level")):
            sections.get(name, {}).pop(key, None)
        atomic.write_json(path, noted)
    now = schema.build(run_config.RunConfig, stored_config.of_run(folder))
    folders = folders_lib.Folders.of(now, folder)
    for name in (
        "patches",
        "encoder",
        "embeddings",
        "autoencoder",
        "latents",
        "denoiser",
        "sample",
    ):
        inputs = provenance.stored(folders, name)["config"].get("inputs")
        assert provenance.differences(table.STAGES, name, now, folders, inputs) == {}
    generator = ssldiff_jax.Generator.load(folder)
    assert (generator.level, generator.trained.denoiser.config.num_levels) == (1.0, 0)
