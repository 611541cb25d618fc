"""A student of the denoiser in the place of it: what is called, how often, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
import random_models

from configs import default, tiny
from ssldiff_jax.core import schema
from ssldiff_jax.diffusion import guidance, solvers
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import exported
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.sampler import field, sampler, windows


@pytest.fixture(scope="module")
def model():
    return random_models.make(visits=4)


def sampled(model, **changes):
    """The same model sampled in another way; `steps` of DDIM, of which `last` overlap."""
    sample = model.config.sample
    guidance = dataclasses.replace(sample.guidance, scale=changes.pop("scale", 3.0))
    if steps := changes.pop("steps", None):
        solver = dataclasses.replace(sample.solver, name="ddim", num_solver_steps=steps)
        last = dataclasses.replace(sample.windows.last, steps=changes.pop("last"))
        windows = dataclasses.replace(sample.windows, last=last)
        changes |= {"solver": solver, "windows": windows}
    return model.with_sample(dataclasses.replace(sample, guidance=guidance, **changes))


def image_of(model, grid):
    return model.generate(grid, seed=5)


@pytest.fixture(scope="module")
def grid(model):
    return np.random.default_rng(0).standard_normal((2, 3, model.embedding_dim), np.float32)


@pytest.mark.parametrize("visits", [1, 2, 4])
def test_strides_are_steps_of_ddim(model, grid, visits):
    """A student that has learnt nothing is its teacher without guidance, and takes as few steps; of
    which the last alone overlaps."""
    long = image_of(sampled(model, student="strides", visits=visits), grid)
    plain = image_of(sampled(model, scale=1.0, steps=visits, last=1), grid)
    np.testing.assert_array_equal(np.asarray(long), np.asarray(plain))
    assert long.unet_forwards == plain.unet_forwards
    guided = image_of(sampled(model, steps=visits, last=1), grid)
    assert np.asarray(guided).astype(int).std() > 0
    assert long.unet_forwards < guided.unet_forwards
    patches = [
        sampled(model, **way).sample_patches(grid[0], seed=2)
        for way in (
            {"student": "strides", "visits": visits},
            {"scale": 1.0, "steps": visits, "last": 1},
        )
    ]
    np.testing.assert_array_equal(*patches)


def test_guidance_alone_takes_the_solvers_steps(model, grid):
    alone = image_of(sampled(model, student="guidance"), grid)
    plain = image_of(sampled(model, scale=1.0), grid)
    np.testing.assert_array_equal(np.asarray(alone), np.asarray(plain))
    assert alone.unet_forwards == plain.unet_forwards


def told(model, ways, grid):
    """Images of a student that hears what it is told."""
    student = model.trained.student
    heard = jax.tree.map(lambda p: p, student.params)
    out = heard["step"]["step_out"]
    source = np.random.default_rng(3)
    heard["step"] = heard["step"] | {
        "step_out": {name: source.standard_normal(p.shape, np.float32) for name, p in out.items()}
    }
    trained = dataclasses.replace(model.trained, student=student._replace(params=heard))
    other = type(model)(model.config, trained, model.mesh)
    return [np.asarray(image_of(sampled(other, **way), grid)).astype(int) for way in ways]


def test_a_student_is_told_its_guidance_and_where_its_steps_end(model, grid):
    one, other_scale, alone = told(
        model,
        [
            {"student": "strides", "visits": 2, "scale": 2.0},
            {"student": "strides", "visits": 2, "scale": 4.0},
            {"student": "guidance", "scale": 2.0, "steps": 2, "last": 1},
        ],
        grid,
    )
    assert np.abs(one - other_scale).max() > 0
    # The same two timesteps; only where they end is another.
    assert np.abs(one - alone).max() > 0


def test_without_a_student_one_line_says_how_to_get_one(model):
    trained = dataclasses.replace(model.trained, student=None)
    without = type(model)(model.config, trained, model.mesh)
    with pytest.raises(folders.WorkdirError, match=r"needs the step distill .*stages=distill"):
        sampled(without, student="strides")


def test_calls_of_the_published_sizes():
    """4 strides of 25 windows at 1024² px, of which the last has 36, in chunks of 25."""
    values = default.get_config()
    values.distill.visits, values.sample.student = 4, "strides"
    config = schema.build(run_config.RunConfig, values.to_dict())
    sample = config.sample.as_called
    table = solvers.solver_table(sample.solver, config.denoiser.schedule)
    once = lambda denoise: guidance.GuidedX0(denoise, config.denoiser.process)
    grid = sampler.GridSampler(np.add, once, table, 25, field.CanvasConfig(3))
    calls = [
        grid.unet_forwards(windows.plan_windows(sample.windows, (px // 4, px // 4), 64, 4))
        for px in (1024, 4096, 16384)
    ]
    assert calls == [3 * 25 + 50, 3 * 300 + 400, 3 * 4225 + 5625]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill.visits": 3}, r"must be 0 or a power of 2, got 3"),
        ({"distill.scales": (0.5, 2.0)}, r"1 ≤ least scale .* got .*\(0.5, 2.0\)"),
        ({"distill.visits": 512}, r"visits · steps ≤ sample.solver.t_start \+ 1, got 512 · 3"),
        ({"sample.student": "strides", "distill.visits": 0}, r"distill.visits ≥ 1, got 0"),
        ({"sample.student": "strides", "sample.visits": 8}, r"must be one of 4, 2, 1, .* got 8"),
        ({"sample.student": "strides", "sample.visits": 3}, r"must be one of 4, 2, 1, .* got 3"),
        ({"sample.student": "guidance", "sample.guidance.scale": 9.0}, r"scales=.*, got 9.0"),
        ({"sample.student": "guidance", "sample.solver.spacing": "leading"}, "got spacing=leading"),
        ({"sample.student": "none"}, "'none'"),
    ],
)
def test_what_no_student_learns_is_refused(changes, message):
    values = tiny.get_config()
    values.distill.visits = 4
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        target = values
        for part in section.split("."):
            target = target[part]
        target[name] = value
    with pytest.raises(schema.ConfigError, match=message):
        schema.build(run_config.RunConfig, values.to_dict())


def test_an_export_has_the_student(model, grid, tmp_path):
    written = exported.write(
        tmp_path, model.trained, exported.Card.of(model.config, model.trained, {})
    )
    assert tmp_path / exported.STUDENT in written
    config, found = exported.load(tmp_path / exported.DENOISER)
    loaded = type(model)(config, found, model.mesh)
    way = {"student": "strides", "visits": 2}
    images = [np.asarray(image_of(sampled(m, **way), grid)) for m in (model, loaded)]
    np.testing.assert_array_equal(*images)


def test_a_student_of_another_denoiser_is_refused(model, tmp_path):
    trained = model.trained
    moved = jax.tree.map(lambda p: p + 1, trained.params)
    card = exported.Card.of(model.config, trained, {})
    exported.write(tmp_path / "own", trained, card)
    exported.write(tmp_path / "other", dataclasses.replace(trained, params=moved), card)
    student = (tmp_path / "own" / exported.STUDENT).read_bytes()
    (tmp_path / "other" / exported.STUDENT).write_bytes(student)
    with pytest.raises(reader.WeightsError, match=r"student.safetensors must be a student of"):
        exported.load(tmp_path / "other" / exported.DENOISER)
