"""A run whose denoiser is conditioned on 2 × 2 tokens a patch: what it stores, generates, exports,
and what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest

import ssldiff_jax
from ssldiff_jax.core import patch_grid
from ssldiff_jax.data import crop_reader, store
from ssldiff_jax.encoders import variety
from ssldiff_jax.generation import exported
from ssldiff_jax.runs import artifacts as artifacts_lib

pytestmark = pytest.mark.e2e
TOKENS = "--config.embeddings.tokens_per_side=2"
AGAIN = "embeddings,denoiser,sample"


@pytest.fixture(scope="module")
def run(command, workdir, tmp_path_factory):
    """The tiny run, from its embeddings on of two tokens a side."""
    folder = tmp_path_factory.mktemp("tokens") / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    for name in ("tokens", "imagine", "evaluate", "report"):
        shutil.rmtree(folder / name)  # of one token a cell
    stages = f"--config.stages={AGAIN},export,variations"
    done = command(folder, TOKENS, stages, f"--config.force={AGAIN}")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def model(run):
    return ssldiff_jax.Generator.load(run)


def test_tokens_of_every_crop_are_stored(run, model):
    tokens = store.Store(run / "embeddings")
    assert (tokens.facts["dim"], tokens.facts["tokens_per_side"]) == (32, 2)
    stored = tokens.read("embedding", len(tokens))
    assert (stored.shape, stored.dtype) == ((64, 128), np.float16)
    artifacts = artifacts_lib.Artifacts(model.config, None)
    source = artifacts_lib.records_lib.RecordSource(run / "patches" / "records", "train")
    table = artifacts_lib.crop_table(artifacts.config, source)
    patches = crop_reader.CropReader(source, table).patches(list(range(8)))
    np.testing.assert_allclose(stored[:8], model.condition_encoder(patches), rtol=2e-3, atol=2e-3)
    of_all = stored.reshape(-1, 32).astype(np.float32)
    rank = variety.effective_rank(of_all)
    assert tokens.facts["effective_rank_white"] == pytest.approx(rank, rel=0.02)
    assert 1 < tokens.facts["effective_rank"] < rank
    assert tokens.facts["num_ranked"] == len(of_all)


def test_the_denoiser_is_trained_on_them(run, model):
    sizes = model.trained.denoiser.config
    assert (sizes.embedding_dim, sizes.tokens_per_side, sizes.condition_dim) == (32, 2, 128)
    facts = json.loads((run / "denoiser" / "done.json").read_text())["facts"]
    assert facts["embedding_dim"] == 32
    assert model.trained.params["conditioner"]["place"]["kernel"].shape == (12, 32)


def test_an_export_of_tokens_generates_the_runs_pixels(run, model, region):
    loaded = ssldiff_jax.Generator.load(run / "export")
    assert loaded.embedding_dim == model.embedding_dim == 128
    np.testing.assert_array_equal(loaded.embed(region), model.embed(region))
    mine, theirs = (np.asarray(g.regenerate(region, seed=3)) for g in (model, loaded))
    np.testing.assert_array_equal(mine, theirs)
    assert mine.std() > 0
    card = exported.Card.read(run / "export" / exported.DENOISER)
    assert card.config["embeddings"]["tokens_per_side"] == 2


def test_images_of_the_run_are_those_of_its_generator(run, model, region):
    """The cells of a region singly, by their tokens."""
    grid = model.embed(region)
    assert grid.shape == (2, 2, 128)
    one_each = model.encoder(patch_grid.cut_cells(region, model.patch_px))
    np.testing.assert_allclose(grid.reshape(4, 4, 32).mean(axis=1), one_each, atol=1e-4)
    assert all((run / "sample" / f"{name}_0.png").exists() for name in ("image", "patches"))
    assert (run / "variations" / "region_0.tif").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--config.generate.prior.anything=True", "--config.generate.size=(128,128)"),
        ('--config.generate.edits=("0,1=prior",)',),
    ],
    ids=["grid", "edit"],
)
def test_without_a_second_level_what_the_prior_is_asked_for_is_refused_in_one_line(
    run, refusal, flags
):
    line = refusal(run, TOKENS, "--config.stages=generate", *flags)
    assert re.search(
        r"the denoiser's 2 × 2 tokens \(128 numbers\), got one embedding each .*nothing", line
    )


def test_another_number_of_tokens_is_another_run(run, refusal):
    line = refusal(run, "--config.stages=generate", "--config.generate.name=other")
    assert "holds stage 'embeddings' of another config" in line
    assert re.search(r"embeddings.tokens_per_side: 2 → 1", line)
    line = refusal(run, "--config.embeddings.tokens_per_side=3", "--config.stages=embeddings")
    assert "must divide the encoder's 8 tokens along a side" in line


def test_edits_and_blends_of_a_reference_take_tokens(run, command):
    image = run / "patches" / "region_0.png"
    done = command(
        run, TOKENS, "--config.stages=generate", f"--config.generate.reference={image}",
        f"--config.generate.blend_with={run / 'patches' / 'region_1.png'}",
        f'--config.generate.edits=("0,0=1,1","1,0={image}")', "--config.generate.outpaint_px=64",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
