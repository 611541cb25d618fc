"""Figures and choices of stages are made with exact products, whatever the default."""

import types

import jax
import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import bands, schema
from ssldiff_jax.encoders import encoder as encoder_lib
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.stages import encoder
from ssldiff_jax.stages.tools.study import classes, task

PX = 4


class Recording(encoder_lib.Encoder):
    """Three pixels of a patch; notes with which products it was asked."""

    def __init__(self):
        self.asked, self.origin = [], np.zeros(3, np.float32)
        self.tokens_per_side, self.whitening, self.view = 1, None, bands.RGB

    @property
    def dim(self):
        return 3

    def __call__(self, patches):
        self.asked.append(jax.config.jax_default_matmul_precision)
        return patches.reshape(len(patches), -1)[:, :3].astype(np.float32)


@pytest.fixture
def model(monkeypatch):
    found, draw = Recording(), np.random.default_rng(0)
    patches = lambda source, count, side, shift=0, start=0: draw.integers(
        0, 256, (8, PX, PX, 3), np.uint8
    )
    monkeypatch.setattr(artifacts, "patches_at", patches)
    monkeypatch.setattr(artifacts, "encoder_digest", lambda model: "0")
    monkeypatch.setattr(artifacts.Artifacts, "encoder", lambda made, name="encoder": found)
    with jax.default_matmul_precision("bfloat16"):
        yield found
    assert found.asked
    assert set(found.asked) == {"highest"}


def test_retrieval(model):
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    jitter = config.encoder.model.jitter
    found = encoder._measure(None, model, "encoder", config.data, jitter)
    assert found["num_tested"] == 8
    assert len(model.asked) > 2


def test_clusters(model, tmp_path):
    (tmp_path / "done.json").touch()
    patches = types.SimpleNamespace(clusters=2)
    config = types.SimpleNamespace(study=types.SimpleNamespace(patches=patches), seed=0)
    made = artifacts.Artifacts(config, folders.Folders(tmp_path, places={"judge": tmp_path}))
    pixels = np.random.default_rng(1).integers(0, 256, (9, PX, PX, 3), np.uint8)
    classes._clusters(made, types.SimpleNamespace(pixels=pixels)).of_pixels(pixels)


def test_embeddings_of_a_study(model):
    regenerator = task.Regenerator(types.SimpleNamespace(encoder=model), 0)
    regenerator.embed(np.zeros((2, PX, PX, 3), np.uint8))
