"""A run whose denoiser is a transformer: it is trained, distilled, sampled and exported."""

import json
import shutil

import numpy as np
import pytest

import ssldiff_jax
from ssldiff_jax.core import blocks
from ssldiff_jax.generation import exported

pytestmark = pytest.mark.e2e
TRANSFORMER = (
    "--config.denoiser.network=dit", "--config.denoiser.schedule.name=linear",
    "--config.denoiser.loss.prediction=velocity", "--config.denoiser.loss.min_snr_gamma=0.0",
    "--config.distill.visits=2", "--config.distill.steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(command, workdir, tmp_path_factory):
    """The tiny run, from its denoiser on another one's."""
    folder = tmp_path_factory.mktemp("transformer") / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    for name in ("imagine", "evaluate", "report"):
        shutil.rmtree(folder / name)
    again = "denoiser,distill,sample"
    done = command(
        folder, *TRANSFORMER, f"--config.stages={again},export", f"--config.force={again}"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def model(run):
    return ssldiff_jax.Generator.load(run)


def test_the_loop_trains_it(run, model):
    params = model.trained.params
    assert params.keys() == {"conditioner", "dit"}
    stacked = params["dit"]["blocks"][blocks.STACKED]
    assert stacked["qkv"]["kernel"].shape == (2, 16, 48)
    # Gates begin at nothing: what they became was learnt, and averaged.
    assert np.abs(stacked["table"]).max() > 0
    lines = [json.loads(line) for line in (run / "denoiser" / "metrics.jsonl").open()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses
    assert all(np.isfinite(losses))
    assert all(line["flops"] > 0 for line in lines if "flops" in line)


def test_images_of_the_run_and_of_its_student(run, model):
    assert all((run / "sample" / f"{name}_0.png").exists() for name in ("image", "patches"))
    assert model.trained.student.params["step"]["step_out"]["kernel"].shape == (16, 16)


def test_an_export_generates_the_runs_pixels(run, model, region):
    loaded = ssldiff_jax.Generator.load(run / "export")
    assert loaded.trained.denoiser.config == model.trained.denoiser.config
    mine, theirs = (np.asarray(g.regenerate(region, seed=3)) for g in (model, loaded))
    np.testing.assert_array_equal(mine, theirs)
    assert mine.std() > 0
    card = exported.Card.read(run / "export" / exported.DENOISER)
    assert card.config["denoiser"]["network"] == "dit"


def test_a_run_of_one_network_is_no_run_of_the_other(refusal, run):
    line = refusal(run, "--config.stages=generate", "--config.generate.name=other")
    assert "denoiser.network: 'dit' → 'unet'" in line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ("--config.denoiser.dit.shape.num_heads=3",),
            "config.denoiser.dit.shape: num_heads must divide width and depth be at least 1, got "
            "width=16, depth=2, num_heads=3",
        ),
        (
            ("--config.denoiser.dit.patch=3",),
            "config.data.crops.patch_px must be a multiple of 12 (the autoencoder's and the dit's "
            "downsampling)",
        ),
        (
            ("--config.denoiser.dit.latent_channels=3",),
            "config.denoiser.dit.latent_channels must equal the autoencoder's, got 3 and 4",
        ),
        (
            ("--config.denoiser.region_dim=5",),
            "config.denoiser.region_dim must be 0 with config.denoiser.network=dit, got 5",
        ),
        (("--config.denoiser.network=transformer",), "must be one of ('unet', 'dit')"),
    ],
)
def test_what_does_not_fit_a_transformer_is_one_line(refusal, tmp_path, flags, expected):
    assert expected in refusal(tmp_path, "--config.denoiser.network=dit", *flags)
