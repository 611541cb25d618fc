"""A run of 2 × 2 tokens a cell whose prior has a second level: what the step `tokens` reads and
writes, and what is generated from labels, edited and exported with it."""

import json
import shutil

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import ssldiff_jax
from ssldiff_jax.data import crop_reader, store
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import exported
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.slides import pyramid

pytestmark = pytest.mark.e2e
TOKENS = "--config.embeddings.tokens_per_side=2"
AGAIN = "embeddings,denoiser,tokens,imagine"
DIM, PX = 32, 64


@pytest.fixture(scope="module")
def run(command, workdir, tmp_path_factory):
    """The tiny run, from its embeddings on of two tokens a side."""
    folder = tmp_path_factory.mktemp("level") / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    for name in ("sample", "evaluate", "report"):
        shutil.rmtree(folder / name)  # of one token a cell
    done = command(folder, TOKENS, f"--config.stages={AGAIN},export", f"--config.force={AGAIN}")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def model(run):
    return ssldiff_jax.Generator.load(run)


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_run_of_one_token_a_cell_trains_nothing(workdir):
    facts = json.loads((workdir / "tokens" / "done.json").read_text())["facts"]
    assert facts == {"tokens_per_side": 1}
    assert not (workdir / "tokens" / "checkpoints").exists()
    assert [field.name for field in store.Store(workdir / "embeddings").fields] == ["embedding"]


def test_beside_tokens_lies_the_embedding_of_the_same_crop(run, model):
    stored = store.Store(run / "embeddings")
    batch = stored.batch(range(8))
    artifacts = artifacts_lib.Artifacts(model.config, None)
    source = artifacts_lib.records_lib.RecordSource(run / "patches" / "records", "train")
    table = artifacts_lib.crop_table(artifacts.config, source)
    patches = crop_reader.CropReader(source, table).patches(list(range(8)))
    np.testing.assert_allclose(batch["whole"], model.encoder(patches), atol=1e-4)
    mean = batch["embedding"].astype(np.float32).reshape(8, 4, DIM).mean(axis=1)
    np.testing.assert_allclose(mean, batch["whole"], atol=5e-3)


def test_stored_tokens_are_made_white(run):
    stored, white = store.Store(run / "embeddings"), tokens_lib.WhiteTokens.load(run / "tokens")
    tokens = stored.read("embedding", len(stored)).astype(np.float32).reshape(-1, DIM)
    for name, values in (("tokens", tokens), ("whole", stored.read("whole", len(stored)))):
        made = getattr(white, name).apply(values)
        assert np.abs(made.mean(axis=0)).max() < 0.05
        assert made.var(axis=0).max() < 1.1


def test_tokens_are_held_against_simpler_ways(run):
    results = results_of(run / "tokens")
    assert set(results) == {
        "tokens", "tokens, embeddings shuffled", "embedding at every token",
        "nearest training patch", "real",
    }  # fmt: skip
    # An encoder that averages: the embedding is the mean, whatever the tokens are.
    assert results["real"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert results["embedding at every token"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert results["embedding at every token"]["neighbour_correlation"] > 1
    assert results["nearest training patch"]["nearest_distance"] < 1e-3
    assert results["tokens"]["nearest_distance"] > 0.1


def test_images_of_labels_are_generated_from_tokens(run, model, command):
    assert (run / "imagine" / "image_0.png").exists()
    asked = "--config.generate.prior.labels=('nuclei=0.4',)"
    done = command(run, TOKENS, "--config.stages=generate", asked,
                   "--config.generate.size=(128,192)", "--config.generate.name=asked",
                   "--config.sample.output.formats=('png',)")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    folder = run / "generate" / "asked"
    grid = np.load(folder / "grid.npy")
    assert grid.shape == (2, 3, 4 * DIM)
    coarse = model.sample_grid((128, 192), labels={"nuclei": 0.4}, seed=0)
    assert coarse.shape == (2, 3, DIM)
    np.testing.assert_allclose(model.finer(coarse, seed=0), grid, atol=1e-4)
    # What was kept beside the image is what it was generated from.
    again = np.asarray(model.generate(grid, seed=0)).astype(int)
    stored = pyramid.read_image(folder / "image.png").astype(int)
    assert np.abs(again - stored).mean() < 1


def test_the_prior_fills_cells_and_goes_on_beyond_a_reference(run, command):
    image = run / "patches" / "region_0.png"
    done = command(
        run, TOKENS, "--config.stages=generate", f"--config.generate.reference={image}",
        f"--config.generate.blend_with={run / 'patches' / 'region_0.png'}",
        '--config.generate.edits=("0,1=prior",)', "--config.generate.outpaint_px=64",
        "--config.generate.prior.beyond=prior", "--config.generate.name=edited",
        "--config.sample.output.formats=('png',)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert pyramid.read_image(run / "generate" / "edited" / "image.png").shape == (256, 256, 3)


def test_an_export_samples_the_runs_tokens(run, model):
    loaded = ssldiff_jax.Generator.load(run / "export")
    grids = [g.sample_grid((128, 192), labels={"nuclei": 0.7}, seed=2) for g in (model, loaded)]
    np.testing.assert_array_equal(*grids)
    np.testing.assert_array_equal(*(g.finer(grids[0], seed=2) for g in (model, loaded)))
    card = exported.Card.read(run / "export" / exported.TOKENS)
    assert card.config["embeddings"]["tokens_per_side"] == 2


def changed(run, folder, **head):
    """An export whose second level says something else of itself."""
    folder.mkdir()
    for name in (exported.DENOISER, exported.ENCODER, exported.PRIOR):
        (folder / name).write_bytes((run / "export" / name).read_bytes())
    with safetensors.safe_open(run / "export" / exported.TOKENS, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    metadata = {key: value for key, value in (metadata | head).items() if value}
    safetensors.numpy.save_file(tensors, folder / exported.TOKENS, metadata=metadata)
    return folder


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"tokens_per_side": "4"}, r"sample the denoiser's 2 × 2 tokens a cell, got 4 × 4"),
        ({"tokens_of": '"0123456789ab"'}, r"tokens of the encoder \w{12} .*, got those of 012345"),
        ({"tokens_of": ""}, r"expected an exported second level of a prior, got no \['tokens_of'"),
    ],
)
def test_a_second_level_of_other_tokens_is_refused(run, tmp_path, head, message):
    with pytest.raises(reader.WeightsError, match=message):
        ssldiff_jax.Generator.load(changed(run, tmp_path / "export", **head))


def test_without_its_file_one_line_says_what_lacks(run, tmp_path):
    folder = changed(run, tmp_path / "export")
    (folder / exported.TOKENS).unlink()
    loaded = ssldiff_jax.Generator.load(folder)
    coarse = loaded.sample_grid((64, 64), seed=0)
    with pytest.raises(ValueError, match="nothing that samples tokens"):
        loaded.generate(coarse)


def test_embeddings_of_before_are_made_again(run, command, tmp_path):
    """A store of tokens alone, as one of an earlier version is."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder, symlinks=True)
    shutil.rmtree(folder / "tokens")
    old = store.Store(folder / "embeddings")
    tokens, facts = old.read("embedding", len(old)), old.facts
    writer = store.StoreWriter(folder / "embeddings", old.fields[:1])
    writer.append(embedding=tokens)
    writer.close(**facts)
    done = command(folder, TOKENS, "--config.stages=tokens")
    assert done.returncode == 1
    assert "--config.force=embeddings makes them again" in done.stderr.splitlines()[-1]
