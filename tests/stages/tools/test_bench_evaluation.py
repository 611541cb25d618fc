"""What the part `evaluation` of the tool `bench` measures, at small sizes."""

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import moments, schema
from ssldiff_jax.evaluation.metrics import frechet
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.bench import evaluation

SIZES = evaluation.Sizes(patches=5, gaussian=60, pairs=40, dim=4, repetitions=2)
COSTS = {"frechet_60x4/from_features_to_interval": "s", "frechet_60x4/memory": "MB",
         "frechet_60x4/of_moments": "s", "kid_40x4/seconds": "s", "kid_40x4/memory": "MB",
         "precision_recall_40x4/seconds": "s", "precision_recall_40x4/memory": "MB"}  # fmt: skip


@pytest.fixture(scope="module")
def config():
    return schema.build(run_config.RunConfig, tiny.get_config().to_dict())


def rows(config, workdir):
    found = list(evaluation.rows(stage.Context(config, workdir, None).artifacts, SIZES))
    assert all(len(values) == 2 for _, values, _ in found)
    assert all(min(values) > 0 for _, values, unit in found if unit != "MB")
    return {name.removeprefix("evaluation/"): unit for name, _, unit in found}


def test_without_a_run_weights_are_random(config, tmp_path):
    rates = {f"{name}_random_weights/per_core": "patches/s" for name in ("encoder", "judge")}
    found = rows(config, tmp_path)
    assert (rates | COSTS).items() <= found.items()
    assert not any("_own_weights" in name for name in found)


def test_the_runs_own_weights_are_taken_where_there_are_any(config, workdir):
    rates = {f"{name}_own_weights/per_core": "patches/s" for name in ("encoder", "judge")}
    found = rows(config, workdir)
    assert (rates | COSTS).items() <= found.items()
    assert not any("_random_weights" in name for name in found)


def test_streamed_features_are_as_many_as_told_and_both_sides_differ():
    sides = [moments.Moments.merged(evaluation._blocks(side, SIZES)) for side in (0, 1)]
    assert [(side.count, side.dim) for side in sides] == [(60, 4)] * 2
    whole = np.random.default_rng(0).standard_normal((60, 4), np.float32)
    np.testing.assert_allclose(sides[0].mean, whole.mean(axis=0, dtype=np.float64), atol=1e-12)
    assert frechet.frechet(*sides) > 0
