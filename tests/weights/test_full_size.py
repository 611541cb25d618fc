"""The published models at their full size, without their weights: every name, every shape."""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest
import small_configs

from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.weights import published
from ssldiff_jax.weights.tables import latent_diffusion
from tests.weights.test_parity import autoencoder_config

DENOISER = conditioning.DenoiserConfig(small_configs.section("denoiser.unet"), 384)
FIRST_STAGES = {
    "vq_f4": (
        "vq",
        small_configs.section("autoencoder.model.conv"),
    ),
    "kl_f8": (
        "kl",
        small_configs.section(
            "autoencoder.model.conv", latent_channels=4, channel_mult=(1, 2, 4, 4)
        ),
    ),
}


def in_file(table, like):
    """What our parameters would be called and shaped in a file; nothing is allocated."""
    found = {}
    for path, leaf in flax.traverse_util.flatten_dict(like, sep="/").items():
        (line,) = [entry for entry in table.entries if entry.matches(path)]
        names = line.names(path)
        parts = np.split(np.broadcast_to(np.float32(0), leaf.shape), len(names), axis=-1)
        for name, part in zip(names, parts, strict=True):
            found[table.written + name] = list(line.to_file(part).shape)
    return found


@pytest.fixture(scope="module")
def told(golden_path):
    return json.loads(golden_path("full_size_names.json").read_text())


def test_the_unet_has_the_published_layout(told):
    like = published.abstract_denoiser(DENOISER)["unet"]
    assert in_file(latent_diffusion.unet_names(DENOISER.unet), like) == told["unet"]
    assert sum(leaf.size for leaf in jax.tree.leaves(like)) == 400_920_579


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_first_stages_have_the_published_layout(told, name):
    kind, sizes = FIRST_STAGES[name]
    like = published.abstract_autoencoder(autoencoder_config(kind, sizes))
    assert in_file(latent_diffusion.first_stage_names(sizes), like) == told[name]
