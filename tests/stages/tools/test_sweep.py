"""The tool `sweep`: ways that cannot be are refused, seams are looked for where windows end."""

import types

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.generation import plan as plan_lib
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.sampler import windows
from ssldiff_jax.stages.tools import sweep


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("solver.num_solver_steps=1000 solver.t_start=990", r"got num_solver_steps=1000.*in 'sol"),
        ("solver.eta=2.0 solver.name=ddim", r"solver: eta must lie in \[0, 1\], got eta=2.0"),
        ("solver.etta=0.5", "no key in 'solver.etta=0.5'"),
    ],
)
def test_a_way_that_cannot_be_is_refused(way, message):
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    with pytest.raises(schema.ConfigError, match=message):
        sweep.sample_section(config, way)


def test_seams_are_those_of_the_plan():
    plan = windows.plan_windows(
        windows.WindowConfig("offset", 1, 4, "uniform", "margin", windows.SIDE_BY_SIDE),
        (32, 32),
        8,
        3,
    )
    start = int(plan.steps[-1].rows[0] % 8 * 4)
    noise = np.random.default_rng(0).integers(100, 104, (128, 128, 3))
    band = (np.arange(128) - start) // 32 % 2
    image = (noise + 20 * band[:, None, None]).astype(np.uint8)
    config = types.SimpleNamespace(downsample_factor=4)
    model = types.SimpleNamespace(config=config, patch_px=32)
    planned = plan_lib.ImagePlan((128, 128), plan, lambda corners: corners, 0)
    banded = sweep._seams(model, [planned], [image])
    assert banded["last_step_seams"] > 50
    assert banded["worst_phase"] > 50
    assert banded["last_step_seams_error"] is None
    plain = sweep._seams(model, [planned] * 2, [noise.astype(np.uint8), image])
    mean = (1 + banded["last_step_seams"]) / 2
    assert plain["last_step_seams"] == pytest.approx(mean, abs=0.1)
    # Of two values the standard error is half their distance.
    assert plain["last_step_seams_error"] == pytest.approx(mean - 1, abs=0.1)


def test_the_table_has_a_dash_where_there_is_no_figure(tmp_path):
    rows = [{"way": "real", "seams": 1.5}, {"way": "a", "seams": None, "variance": 0.51239}]
    sweep._write(tmp_path / "table.md", rows)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0] == "| way | seams | variance |"
    assert lines[2:] == ["| real | 1.5 | – |", "| a | – | 0.5124 |"]


def _config(*ways):
    config = tiny.get_config()
    config.sweep.variants = ways
    return schema.build(run_config.RunConfig, config.to_dict())


def test_ways_that_come_to_the_same_are_sampled_once():
    steps = tiny.get_config().sample.solver.num_solver_steps
    config = _config(
        "guidance.scale=4.0", "", f"solver.num_solver_steps={steps}", "guidance.scale=4"
    )
    ways = sweep._different(config)
    assert list(ways) == ["guidance.scale=4.0", sweep.AS_CONFIGURED]
    assert ways[sweep.AS_CONFIGURED] == config.sample
    assert ways["guidance.scale=4.0"].guidance.scale == 4


def test_every_way_of_the_default_can_be():
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    ways = sweep._different(config)
    assert len(ways) >= 20
    assert {way.conditioning for way in ways.values()} == {"dense", "interpolated", "cells"}
    assert list(ways.values())[-1].windows.mode == "paper"


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ("windows.mode=overlap windows.stride=4", True),
        ("canvas_dtype=bfloat16 decode.tile=8 decode.overlap=2", True),
        ("compute_dtype=bfloat16", False),
        ("guidance.scale=3.0", False),
        ("solver.num_solver_steps=2", False),
    ],
)
def test_ways_share_patches_that_are_the_same(random_generator, change, is_same):
    """Patches that are generated one by one, for real: what decides them is all of the key."""
    config = random_generator.config
    section = sweep.sample_section(config, change)
    assert (sweep.of_patches(section) == sweep.of_patches(config.sample)) == is_same
    shape = (2, random_generator.embedding_dim)
    embedding = np.random.default_rng(0).standard_normal(shape, np.float32)
    own, other = (
        model.sample_patches(embedding, seed=1)
        for model in (random_generator, random_generator.with_sample(section))
    )
    assert np.array_equal(own, other) == is_same
