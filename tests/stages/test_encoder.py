"""What is measured of an encoder where records are no larger than patches."""

import numpy as np
import pytest
import small_configs

from configs import tcga
from ssldiff_jax.core import schema
from ssldiff_jax.encoders import augment, encoder, pixels
from ssldiff_jax.runs import artifacts
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import encoder as encoder_stage

PX = 32
JITTER = augment.ColorJitter(0.1, 0.1, 0.05)


def textures(count):
    """Patches of the same colours in other arrangements: no histogram tells them apart."""
    generator = np.random.default_rng(0)
    coarse = np.linspace(40, 215, 192).reshape(8, 8, 3)
    mixed = [generator.permutation(coarse.ravel()).reshape(8, 8, 3) for _ in range(count)]
    return np.array(mixed).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def measured(embed, monkeypatch, caplog):
    """Facts of an encoder of 12 numbers, and what it was warned of."""
    patches = textures(300)
    take = lambda source, count, side, shift=0, *, start=0: patches[start:count]
    monkeypatch.setattr(artifacts, "patches_at", take)
    monkeypatch.setattr(artifacts, "encoder_digest", lambda model: "0" * 12)
    monkeypatch.setattr(encoder_stage.networks, "OfEncoder", lambda name, model: embed)
    config = schema.build(run_config.RunConfig, tcga.get_config().to_dict())
    # Its weights are not asked for: `embed` stands in their place.
    sizes = small_configs.section(
        "encoder.model.vit", image_px=PX, patch_px=8, width=12, num_heads=3
    )
    model = encoder.Encoder(encoder.Architecture(sizes, pixels.Pixels(PX)), {}, np.zeros(12))
    facts = encoder_stage._measure(None, model, "judge", config.data, config.judge.model.jitter)
    return facts, [record.getMessage() for record in caplog.records]


def project(patches):
    """Random features of blurred pixels, deviations from grey."""
    coarse = patches.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(len(patches), -1)
    return ((coarse - 127.5) @ np.random.default_rng(1).normal(size=(48, 12))).astype(np.float32)


def test_the_published_config_measures_retrieval(monkeypatch, caplog):
    facts, told = measured(project, monkeypatch, caplog)
    assert facts["retrieval_top1"] == {}  # records are no larger than patches
    assert facts["retrieval_of_views"] > 0.25  # by chance 0.004
    assert facts["num_tested"] == 256
    assert facts["num_ranked"] == 120
    assert told == []


@pytest.mark.parametrize(
    ("embed", "said"),
    [
        (lambda patches: np.ones((len(patches), 12), np.float32), "embeddings have collapsed: 120"),
        (
            lambda patches: (
                np.random.default_rng(int(patches.sum()) % 999)
                .normal(size=(len(patches), 12))
                .astype(np.float32)
            ),
            "no more than by chance: the embeddings are uninformative",
        ),
    ],
    ids=["all equal", "noise"],
)
def test_an_encoder_that_tells_nothing_is_warned_of_in_one_line(embed, said, monkeypatch, caplog):
    facts, told = measured(embed, monkeypatch, caplog)
    assert len(told) == 1
    assert told[0].startswith("judge: ")
    assert said in told[0]
    assert facts["retrieval_of_views"] < 0.05


def test_a_view_is_the_inner_part_of_a_patch_as_it_lies():
    patches = textures(3)
    still = augment.ColorJitter(0.0, 0.0, 0.0)
    views = encoder_stage._views(patches, still)
    assert views.shape == patches.shape
    assert views.dtype == np.uint8
    flat = lambda x: x.reshape(len(x), -1).astype(np.float32) - 127.5
    assert encoder.top1(flat(views), flat(patches)) == 1
    turned = encoder_stage._views(patches[:, :, ::-1], still)
    np.testing.assert_allclose(turned[:, :, ::-1], views, atol=1)
    assert np.abs(encoder_stage._views(patches, JITTER).astype(int) - views).mean() > 1
