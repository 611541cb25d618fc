"""Grids of embeddings from a trained prior, and large images of them."""

import json
import re

import compilations
import numpy as np
import pytest

from ssldiff_jax.core import patch_grid
from ssldiff_jax.data import store
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.evaluation.features import zero_shot
from ssldiff_jax.evaluation.metrics import heard
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import models as models_lib
from ssldiff_jax.generation import prior_sampler
from ssldiff_jax.generation.generator import Generator
from ssldiff_jax.prior import whitening
from ssldiff_jax.runs import artifacts, stage

pytestmark = pytest.mark.e2e
PX, SIDE = 64, 2


def test_grids_are_white_and_told_what_they_show(workdir):
    grids = store.Store(workdir / "grids" / "train")
    white = grids.read("grid", 40).astype(np.float32).reshape(-1, grids.facts["dim"])
    assert len(grids) == 40
    assert np.abs(white.mean(axis=0)).max() < 0.05
    assert white.var(axis=0).max() < 1.1
    spec = artifacts.condition_spec(grids.facts["spec"])
    assert spec.labels == measures.label_names("stain")
    told = spec.unpack(grids.read("condition", 40).astype(np.float32))
    assert (told["labels_known"] == 1).all()
    assert ((told["labels"] >= 0) & (told["labels"] <= 1)).all()
    # The three classes are all there is.
    whole = told["labels"].reshape(40, 3, 5)[:, :, 0].sum(axis=1)
    np.testing.assert_allclose(whole, 1, atol=2e-3)


def test_grids_in_store_are_the_embeddings_of_their_regions(workdir, generator):
    """White and back again, each is what the encoder gives for its cells, in their order."""
    white = whitening.Whitening.load(workdir / "grids" / "whitening.npz")
    found = white.undo(store.Store(workdir / "grids" / "test").read("grid", 8).astype(np.float32))
    context = stage.Context(generator.config, workdir, generator.mesh)
    table = context.artifacts.regions("test")
    pixels = [patch_grid.cut_cells(table.read_grid(one), PX) for _, one in table.among(range(8))]
    expected = generator.encoder(np.concatenate(pixels)).reshape(8, SIDE, SIDE, -1)
    # White numbers are stored in half precision.
    np.testing.assert_allclose(found, expected, atol=5e-3 * expected.std(axis=(0, 1, 2)).max())


def test_the_prior_is_held_against_simpler_ways(workdir):
    results = atomic.read_json(workdir / "prior" / "results.json")
    assert set(results) == {
        "prior", "prior, conditions shuffled", "independent cells", "nearest training grid", "real",
    }  # fmt: skip
    # What is taken from training is a copy, whatever was learnt.
    assert results["nearest training grid"]["nearest_distance"] < 1e-3
    assert results["prior"]["nearest_distance"] > 0.1
    for figures in results.values():
        assert all(np.isfinite(value) for value in figures.values() if isinstance(value, float))
        for name in ("frechet_of_cells", "frechet_of_grids"):
            assert name not in figures or figures[name]["interval"].startswith("too few: ")


@pytest.mark.parametrize("cells", [(2, 2), (3, 5), (1, 4)])
def test_grids_of_any_size(generator, cells):
    size = (cells[0] * PX, cells[1] * PX)
    draw = lambda **asked: generator.sample_grid(size, **asked)
    grid = draw(labels={"nuclei": 0.5}, seed=1)
    assert grid.shape == (*cells, generator.embedding_dim)
    assert np.isfinite(grid).all()
    np.testing.assert_array_equal(grid, draw(labels={"nuclei": 0.5}, seed=1))
    assert not np.array_equal(grid, draw(labels={"nuclei": 0.5}, seed=2))


def test_a_size_is_traced_once(generator):
    sample = lambda labels, seed: generator.prior.sample(
        prior_sampler.PriorRequest(labels=labels), (4, 6), seed=seed
    )
    with compilations.counted() as first:
        sample({"nuclei": 0.15}, 0)
    with compilations.counted() as later:
        sample({"stroma": 0.9}, 1)
        sample({"nuclei": 0.3, "empty": 0.1}, 2)
    assert first.traces > 0
    assert later.traces == 0


def test_known_cells_stay_and_the_others_are_drawn(generator):
    known = generator.sample_grid((4 * PX, 4 * PX), seed=5)
    keep = np.ones((4, 4), bool)
    keep[1:3, 1:3] = False
    done = generator.prior.sample(
        prior_sampler.PriorRequest(), (4, 4), seed=6, known=known, keep_mask=keep
    )
    np.testing.assert_allclose(done[keep], known[keep], atol=1e-3)
    assert np.abs(done[~keep] - known[~keep]).mean() > 1e-2


def test_less_noise_is_less_spread(generator):
    spread = lambda t: np.std(
        [
            generator.prior.sample(prior_sampler.PriorRequest(), (2, 2), seed=s, temperature=t)
            for s in range(6)
        ],
        axis=0,
    ).mean()
    assert spread(0.3) < spread(1.0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"labels": {"nucleii": 1.0}}, "unknown label 'nucleii', expected one of nuclei"),
        ({"numbers": {"TP53": 1.0}}, "knows no such condition"),
        ({"text": "many cells"}, "has learnt no texts"),
    ],
)
def test_what_it_does_not_know_is_one_line(generator, asked, message):
    with pytest.raises(ValueError, match=message):
        generator.sample_grid((128, 128), **asked)


def test_an_image_smaller_than_a_cell_is_refused(generator):
    with pytest.raises(ValueError, match="must hold a cell of 64 px"):
        generator.sample_grid((32, 128))


def test_without_a_prior_one_line_says_what_to_do(generator):
    trained = generator.trained
    alone = models_lib.Models(
        trained.encoder, trained.autoencoder, trained.denoiser, trained.params
    )
    with pytest.raises(stage.WorkdirError, match=r"--config\.stages=grids,prior"):
        Generator(generator.config, alone, generator.mesh).sample_grid((128, 128))


def test_an_image_is_drawn_as_asked_by_one_command(command, workdir):
    asked = "--config.generate.prior.labels=('nuclei=0.4','stroma south-east=1')"
    done = command(workdir, "--config.stages=generate", asked, "--config.generate.size=(128,192)",
                   "--config.sample.output.formats=('png',)")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    name = "nuclei-0.4-stroma-south-east-1-128x192-seed0"
    assert f"generate: 128 × 192 px in {workdir / 'generate' / name / 'image.png'}\n" in done.stderr
    assert np.load(workdir / "generate" / name / "grid.npy").shape[:2] == (2, 3)
    told = atomic.read_json(workdir / "generate" / name / "done.json")["facts"]
    assert json.dumps(told)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.generate.prior.labels=('nuclei=0.4',)",), r"generate\.size=\(height,width\)"),
        (("--config.generate.prior.labels=('nuclei',)",), "name=value"),
        (("--config.generate.prior.text= ",), "must have words"),
    ],
)
def test_what_cannot_be_asked_is_one_line(refusal, workdir, flags, message):
    line = refusal(workdir, "--config.stages=generate", "--config.force=generate", *flags)
    assert re.search(message, line)


def test_a_prior_that_was_told_in_words_draws_from_words(command, workdir, text_folder, tmp_path):
    for name in ("patches", "encoder", "autoencoder", "latents", "embeddings", "denoiser"):
        (tmp_path / name).symlink_to(workdir / name)
    flags = (
        "--config.prior.conditions.captions=measured",
        f"--config.prior.conditions.text_encoder={text_folder}",
        "--config.prior.conditions.text_phrases=4",
    )
    done = command(
        tmp_path, *flags, "--config.stages=grids,prior,imagine,generate",
        "--config.imagine.count=8", "--config.generate.size=(128,128)",
        "--config.generate.prior.text=lake in the west", "--config.sample.output.formats=('png',)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = atomic.read_json(tmp_path / "imagine" / "results.json")
    assert set(results["heard"]) == {
        "real_pixels", "all_conditions", "shuffled_conditions", "labels_alone", "labels_shuffled",
        "text_alone", "text_shuffled",
    }  # fmt: skip
    for way, row in results["heard"].items():
        retrieval = set() if "shuffled" in way else {heard.RETRIEVAL}
        assert set(row["figures"]) == {"nuclei", "stroma", "empty"} | retrieval
    # Real pixels show what is measured in them; models of a few steps show nothing.
    real = results["heard"]["real_pixels"]["figures"]
    assert min(row["value"] for row in real.values()) > 0.5
    text = results["heard"]["text_alone"]["figures"][heard.RETRIEVAL]
    expected = text["low"] <= results["heard"]["text_alone"]["chance"]
    assert ("was not found to hear text" in done.stderr) == expected
    assert "has no word" not in done.stderr
    said = atomic.read_json(tmp_path / "grids" / "captions_train.json")
    assert len(said) == 40
    assert len(set(said)) > 20
    nuclei = re.compile("nuclei|cells|cellular tissue|purple dots")
    assert all(nuclei.search(text) for text in said)
    grids = store.Store(tmp_path / "grids" / "train")
    spec = artifacts.condition_spec(grids.facts["spec"])
    assert (spec.text_phrases, spec.text_dim) == (4, 32)
    told = spec.unpack(grids.read("condition", 40).astype(np.float32))
    assert (told["text_known"].sum(axis=1) == 3).all()  # a phrase a class
    assert (tmp_path / "generate" / "lake-in-the-west-128x128-seed0" / "image.png").exists()


def test_a_prior_that_saw_pictures_draws_from_words(
    command, workdir, generator, clip_folder, tmp_path
):
    """A pair's image tower stands for captions in training; its text tower reads what is asked."""
    for name in ("patches", "encoder", "autoencoder", "latents", "embeddings", "denoiser"):
        (tmp_path / name).symlink_to(workdir / name)
    done = command(
        tmp_path, "--config.prior.conditions.captions=images",
        f"--config.prior.conditions.text_encoder={clip_folder}",
        "--config.stages=grids,prior,generate",
        "--config.generate.size=(128,128)", "--config.generate.prior.text=a photo of the lake",
        "--config.sample.output.formats=('png',)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    grids = store.Store(tmp_path / "grids" / "train")
    spec = artifacts.condition_spec(grids.facts["spec"])
    told = spec.unpack(grids.read("condition", 40).astype(np.float32))
    assert (told["text_known"] == 1).all()
    pair = zero_shot.open_pair(clip_folder)
    context = stage.Context(generator.config, workdir, generator.mesh)
    regions = context.artifacts.regions("train")
    picture = regions.read(regions[3])
    expected = pair.images(picture[None])[0]
    found = told["text"][3]
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.999
    np.testing.assert_allclose(np.linalg.norm(found) / spec.text_dim**0.5, 1, rtol=1e-2)
    assert (tmp_path / "generate" / "a-photo-of-the-lake-128x128-seed0" / "image.png").exists()
