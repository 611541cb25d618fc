"""LPIPS from the two files it is published in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_writer import TorchFile

from ssldiff_jax.autoencoder import lpips
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import names, published
from ssldiff_jax.weights.tables import lpips as tables

IMAGE = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)


def written(path, tensors):
    file = TorchFile()
    file.write(path, {name: file.tensor(value) for name, value in tensors.items()})
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """VGG-16 with small random weights and its classifier; linear layers that weigh all alike."""
    folder, rng = tmp_path_factory.mktemp("lpips"), np.random.default_rng(1)
    like = names.abstract(lpips.LPIPS(), IMAGE, IMAGE)["vgg"]
    draw = lambda leaf: 0.05 * rng.standard_normal(leaf.shape, np.float32)
    vgg = tables.vgg_names().save(jax.tree.map(draw, like))
    vgg["classifier.0.weight"] = np.zeros((3, 3), np.float32)
    widths = (64, 128, 256, 512, 512)
    linear = {
        f"lin{i}.model.1.weight": np.full((1, width, 1, 1), 1 / width, np.float32)
        for i, width in enumerate(widths)
    }
    return written(folder / "vgg16.pth", vgg), written(folder / "vgg.pth", linear)


def test_the_distance_is_a_mean_of_feature_distances(files):
    params = published.load_lpips(",".join(files))
    distance = jax.jit(lambda x, y: lpips.LPIPS().apply({"params": params}, x, y))
    np.testing.assert_allclose(distance(IMAGE, IMAGE), 0, atol=1e-7)
    found = np.asarray(distance(IMAGE, IMAGE[::-1]))
    np.testing.assert_allclose(found, found[::-1], rtol=1e-4)
    assert found.min() > 0

    # With even weights: the mean square over channels and pixels of each depth, added up.
    features = jax.jit(lambda x: lpips.VGGFeatures().apply({"params": params["vgg"]}, x))
    total = 0.0
    for a, b in zip(features(IMAGE), features(IMAGE[::-1]), strict=True):
        unit = lambda f: f / jnp.linalg.norm(f, axis=-1, keepdims=True)
        total += np.mean((unit(a) - unit(b)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found, total, rtol=1e-3)


def test_both_files_are_asked_for(files):
    with pytest.raises(reader.WeightsError, match="VGG-16's file and the linear layers'"):
        published.load_lpips(files[0])
