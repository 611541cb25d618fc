"""What TensorBoard shows of a run: pictures of what its models make, held-out losses, rates."""

import importlib.util
import json

import event_files
import numpy as np
import pytest
from PIL import Image

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs import artifacts, training_tasks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders

PX, STEPS = 64, [2, 4]


def shown(workdir, stage):
    return event_files.read(workdir / stage / "tensorboard")


def held_out(workdir, count):
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    records = artifacts.Artifacts(config, folders.Folders(workdir)).records("test")
    return artifacts.patches_at(records, count, PX)


def test_the_autoencoder_shows_held_out_patches_and_what_it_makes_of_them(workdir):
    scalars, pictures = shown(workdir, "autoencoder")
    assert list(pictures["reconstructions"]) == list(scalars["held_out_loss"]) == STEPS
    for picture in pictures["reconstructions"].values():
        real, made = picture[:PX], picture[PX:]
        np.testing.assert_array_equal(real, np.concatenate(list(held_out(workdir, 6)), axis=1))
        assert made.shape == real.shape
    # By other weights.
    before, after = pictures["reconstructions"].values()
    assert (before[PX:] != after[PX:]).any()


def test_the_denoiser_shows_variations_and_both_losses(workdir):
    scalars, pictures = shown(workdir, "denoiser")
    assert {picture.shape for picture in pictures["variations"].values()} == {(4 * PX, 4 * PX, 3)}
    for name in ("held_out_loss", "training_loss"):
        assert list(scalars[name]) == STEPS
        assert np.isfinite(list(scalars[name].values())).all()
    # The same noise every time: the loss of the last look is that of the weights that are kept.
    assert scalars["held_out_loss"][2] != scalars["held_out_loss"][4]


@pytest.mark.parametrize("stage", ["encoder", "autoencoder", "denoiser", "prior", "judge"])
def test_every_training_shows_its_figures(workdir, stage):
    scalars, _ = shown(workdir, stage)
    lines = [json.loads(x) for x in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name, value in line.items():
            if name != "step":
                assert scalars[name][line["step"]] == pytest.approx(value, rel=1e-6)
    assert scalars["learning_rate"].keys() == {line["step"] for line in lines}
    assert ("held_out_loss" in scalars) == (stage in ("autoencoder", "denoiser", "prior"))


def test_large_images_are_shown(workdir):
    _, pictures = shown(workdir, "sample")
    files = sorted((workdir / "sample").glob("image_*.png"))
    assert sorted(pictures) == [path.stem for path in files] != []
    for path in files:
        np.testing.assert_array_equal(pictures[path.stem][0], np.asarray(Image.open(path)))


def test_trackers_are_told_the_settings_of_the_step(tmp_path):
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    about = training_tasks.about(config, folders.Folders(tmp_path / "mine"), "denoiser")
    assert (about.title, about.folder) == ("mine/denoiser", tmp_path / "mine" / "denoiser")
    assert about.values["denoiser.train.batch_size"] == 8
    assert about.values["denoiser.train.optimizer.learning_rate"] == 2e-3
    assert about.values["seed"] == 0
    assert not any(name.startswith("prior.") for name in about.values)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_missing_is_told_before_anything_begins(refusal, tmp_path):
    line = refusal(tmp_path / "run", "--config.logging.to=wandb", "--config.stages=patches,encoder")
    assert line.endswith("expects the package wandb, got none: pip install wandb")
    assert not (tmp_path / "run").exists()
