"""The tool watch judges every checkpoint, and evaluate the models of another run."""

import csv
import json
import shutil

import numpy as np
import pytest

from ssldiff_jax.evaluation.features import image_files
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import patch_samples
from ssldiff_jax.stages.evaluate import regenerated
from ssldiff_jax.train import checkpoint


@pytest.fixture(scope="module")
def trained(workdir, tmp_path_factory):
    """A run whose denoiser left two checkpoints and is done."""
    run = tmp_path_factory.mktemp("watch") / "run"
    shutil.copytree(workdir, run, symlinks=True)
    (run / "results.csv").unlink()
    return run


def edit(path, change):
    """Change a JSON file in place."""
    value = atomic.read_json(path)
    change(value)
    path.write_text(json.dumps(value))


def test_watch_judges_every_checkpoint_and_goes_on(command, workdir, trained):
    saved = trained / "denoiser" / "checkpoints"
    steps = checkpoint.steps(saved)
    assert len(steps) == 2
    last, kept = saved / str(steps[-1]), trained / "later"
    last.rename(kept)
    done = trained / "denoiser" / "done.json"
    done.rename(trained / "done.json")

    asked = ("--config.stages=watch",)
    found = command(trained, *asked, "--config.evaluate.patience=0.01")
    assert "no new checkpoint came in 0.01 min" in found.stderr
    first = trained / "watch" / f"step_{steps[0]}" / "results.json"
    before = first.stat().st_mtime_ns
    told = atomic.read_json(trained / "watch" / "results.json")["steps"]
    assert [results["step"] for results in told] == steps[:1]

    kept.rename(last)
    (trained / "done.json").rename(done)
    found = command(trained, *asked)
    assert found.returncode == 0, found.stderr[-3000:]
    assert first.stat().st_mtime_ns == before
    told = atomic.read_json(trained / "watch" / "results.json")["steps"]
    assert [results["step"] for results in told] == steps
    rows = list(csv.DictReader((trained / "results.csv").open()))
    assert [int(row["step"]) for row in rows] == steps
    # The last checkpoint is what the evaluation drew with, from the same seed.
    evaluated = atomic.read_json(workdir / "evaluate" / "results.json")["patches"]["judge"]
    assert told[-1]["patches"]["judge"]["frechet"]["uncorrected"] == pytest.approx(
        evaluated["frechet"]["uncorrected"], rel=1e-6
    )
    assert told[0]["patches"]["judge"]["frechet"]["uncorrected"] != pytest.approx(
        evaluated["frechet"]["uncorrected"], rel=1e-6
    )


def of_judge(folder):
    (path,) = folder.glob("judge-*.npy")
    return np.load(path)


def test_watch_refuses_checkpoints_of_another_config(refusal, trained):
    line = refusal(trained, "--config.stages=watch", "--config.denoiser.loss.prediction=x0")
    assert "holds stage 'denoiser' of another config" in line


def test_models_of_another_run_are_judged_on_data_they_never_saw(
    command, refusal, workdir, tmp_path
):
    run = tmp_path / "other"
    cut = ("--config.data.holdout.fraction=0.4", "--config.data.crops.num_crops=9")
    asked = (f"--config.models={workdir}", *cut)
    done = command(run, *asked)
    assert done.returncode == 0, done.stderr[-3000:]
    made = {path.parent.name for path in run.glob("*/done.json")}
    assert made == {"plan", "patches", "sample", "evaluate", "report"}
    found = atomic.read_json(run / "evaluate" / "results.json")
    theirs = atomic.read_json(workdir / "evaluate" / "results.json")
    digest = lambda results: results["patches"]["judge"]["extraction"]["digest"]
    assert digest(found) == digest(theirs)
    # Copies are looked for among the patches that the models were trained on.
    features = [of_judge(path / "evaluate" / "training") for path in (run, workdir)]
    np.testing.assert_allclose(*features, rtol=1e-5, atol=1e-5)
    real = [of_judge(path / "evaluate" / "real" / "features") for path in (run, workdir)]
    assert not np.array_equal(*real)

    line = refusal(run, *asked, "--config.stages=encoder")
    assert "got encoder, which would train them" in line
    line = refusal(run, *asked, "--config.stages=sample", "--config.denoiser.train.num_steps=7")
    assert f"{workdir} holds stage 'denoiser' of another config" in line
    assert "choose another config.models" in line
    for models, message in (
        ("/nowhere", "must name another work directory that has a config.json, got /nowhere"),
        (tmp_path / "third", "must name another work directory"),
        (run, f"must name the run that made the models, {workdir}, got {run}"),
    ):
        assert message in refusal(tmp_path / "third", f"--config.models={models}")
    for change, message in (
        ("data.patch_mpp=3.0", "config.data.patch_mpp must be that of the models in"),
        ("encoder.model.vit.num_heads=1", "holds stage 'encoder' of another config"),
    ):
        assert message in refusal(run, *asked, "--config.stages=sample", f"--config.{change}")


def test_patches_that_are_drawn_are_not_drawn_again(generator, workdir, tmp_path):
    from ssldiff_jax.runs import stage

    context = stage.Context(generator.config, workdir, generator.mesh)
    held_out = patch_samples.Sample.choose(context.artifacts.patches("test"), 3)
    kept = image_files.Format()
    real, drawn = (image_files.Files(tmp_path / name, kept) for name in ("real", "drawn"))
    pair = regenerated.RegeneratedPatches(held_out, real, drawn)
    pair.make(generator, seed=5)
    np.testing.assert_array_equal(real.read(0, 3), held_out.pixels(0, 3))
    first = drawn.read(0, 3)
    drawn.write(1, np.zeros_like(first[:1]))
    pair.make(generator, seed=5)
    assert not drawn.one(1).any()
    (tmp_path / "drawn" / "000001.png").unlink()
    pair.make(generator, seed=5)
    np.testing.assert_array_equal(drawn.read(0, 3), first)


def test_a_patch_is_the_same_however_many_are_drawn(generator):
    embedding = np.random.default_rng(0).normal(size=(13, generator.embedding_dim))
    many = generator.sample_patches(embedding.astype(np.float32), seed=3)
    few = generator.sample_patches(embedding[:2].astype(np.float32), seed=3)
    np.testing.assert_array_equal(many[:2], few)
    # Two of one embedding are two draws.
    twice = generator.sample_patches(embedding[[0, 0]].astype(np.float32), seed=3)
    assert not np.array_equal(*twice)
