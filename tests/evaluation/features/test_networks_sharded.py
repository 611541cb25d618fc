"""Features do not depend on how many devices share a batch."""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import patience
import pytest

from ssldiff_jax.encoders import encoder, inception, pixels, vit
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.weights import names
from ssldiff_jax.weights.tables import inception as inception_weights

DEVICES, COUNT = 4, 6
"""With batches of 4: the second is half padding."""


def images(px):
    return np.random.default_rng(0).integers(0, 256, (COUNT, px, px, 3), np.uint8)


def of_encoder():
    sizes = vit.ViTConfig(16, 8, 12, 1, 2, "class", vit.PLAIN)
    rng = np.random.default_rng(0)
    like = names.abstract(vit.ViT(sizes), jnp.zeros((1, 16, 16, 3)))
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), like)
    architecture = encoder.Architecture(sizes, pixels.Pixels(16))
    model = encoder.Encoder(architecture, params, np.full(12, 0.1), batch_size=4)
    return networks.OfEncoder("encoder", model)


def of_inception():
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)
        low = 0.5 if path[-1].key in ("scale", "variance") else -0.1
        return rng.uniform(low, low + 1, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, inception_weights.abstract_inception())
    return networks.Batched("inception", "0", inception.DIM, inception.features, params, 4)


def extract(clip):
    """Features by each kind of network."""
    return {
        "encoder": of_encoder()(images(16)),
        "inception": of_inception()(images(32)),
        "clip": networks.load(networks.CLIP, clip, batch_size=4)(images(24)),
    }


def save(clip, path):
    """Run by the test below in a process of several devices."""
    np.savez(path, devices=jax.local_device_count(), **extract(clip))


@pytest.fixture(scope="module")
def by_several(clip_folder, tmp_path_factory):
    path, here = tmp_path_factory.mktemp("sharded") / "features.npz", pathlib.Path(__file__)
    code = f"import test_networks_sharded as t; t.save({str(clip_folder)!r}, {str(path)!r})"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{here.parent}:{here.parents[2]}:{here.parents[3]}",
    }
    done = patience.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as found:
        return dict(found)


@pytest.fixture(scope="module")
def by_one(clip_folder):
    assert jax.local_device_count() == 1
    return extract(clip_folder)


@pytest.mark.parametrize("name", ["encoder", "inception", "clip"])
def test_several_devices_find_the_features_of_one(name, by_one, by_several):
    one, several = by_one[name], by_several[name]
    assert by_several["devices"] == DEVICES
    assert one.shape == several.shape
    size = np.linalg.norm(one, axis=1)
    apart = np.linalg.norm(one[:, None] - one, axis=-1)[np.triu_indices(COUNT, 1)]
    assert apart.min() > 1e-4 * size.max()
    assert np.max(np.linalg.norm(several - one, axis=1) / size) < 1e-6
