"""A run with a student of its denoiser: what is trained, and that images are made by it."""

import json
import shutil

import jax
import numpy as np
import pytest

import ssldiff_jax
from ssldiff_jax.generation import exported

pytestmark = pytest.mark.e2e
STUDENT = ("--config.distill.visits=2", "--config.distill.steps=2")
STRIDES = (*STUDENT, "--config.sample.student=strides", "--config.sample.visits=2")
EASIER = "--config.sample.guidance.interval=(0.5,1.0)"


@pytest.fixture(scope="module")
def run(command, workdir, tmp_path_factory):
    """The tiny run with a student, which its images are sampled by."""
    folder = tmp_path_factory.mktemp("distill") / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    for name in ("imagine", "evaluate", "report"):
        shutil.rmtree(folder / name)
    # The tiny run has none, and says so in its folder.
    stages = ("--config.stages=distill,sample,export", "--config.force=distill,sample")
    done = command(folder, *STRIDES, *stages)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def model(run):
    return ssldiff_jax.Generator.load(run)


def test_without_visits_the_step_does_nothing(workdir):
    assert json.loads((workdir / "distill" / "done.json").read_text())["facts"] == {"visits": 0}
    assert not (workdir / "distill" / "checkpoints").exists()


def test_a_student_is_its_teacher_and_what_it_has_learnt(run, model):
    teacher, student = model.trained.params, model.trained.student.params
    assert student.keys() - teacher.keys() == {"step"}
    same = {name: student[name] for name in teacher}
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), teacher, same)
    assert 0 < max(jax.tree.leaves(moved)) < 0.1
    assert np.abs(student["step"]["step_out"]["kernel"]).max() > 0
    lines = [json.loads(line) for line in (run / "distill" / "metrics.jsonl").open()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_images_are_the_students(run, model, workdir):
    """With one call where the denoiser has two, in two steps for three."""
    calls = [
        json.loads((folder / "sample" / "image_0.json").read_text())["unet_forwards"]
        for folder in (run, workdir)
    ]
    assert calls[0] < calls[1] / 2
    assert model.networks.denoiser.config.is_student
    assert (model.config.sample.solver.name, model.config.sample.solver.num_solver_steps) == (
        "ddim",
        2,
    )


def test_an_export_samples_as_the_run_does(run, model, region):
    loaded = ssldiff_jax.Generator.load(run / "export")
    assert (run / "export" / exported.STUDENT).exists()
    mine, theirs = (np.asarray(g.regenerate(region, seed=3)) for g in (model, loaded))
    np.testing.assert_array_equal(mine, theirs)


def test_a_student_of_other_guidance_is_made_again(refusal, run):
    for stage in ("distill", "imagine"):
        line = refusal(run, *STRIDES, EASIER, f"--config.stages={stage}")
        assert "'distill'" in line
        assert "sample.guidance.interval" in line


def test_without_a_student_guidance_is_free(refusal, run):
    """The images that are there were made with other settings; the student is no reason."""
    line = refusal(run, *STUDENT, EASIER, "--config.stages=sample")
    assert "'sample'" in line
    assert "'distill'" not in line
