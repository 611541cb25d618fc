"""FID's InceptionV3: the numbers of pytorch-fid, its resizing, its file, and files that do not fit.

Weights are drawn, as the recording says, and not stored.
"""

import inception_weights
import jax
import numpy as np
import pytest
import torch_writer
from safetensors.numpy import save_file

from ssldiff_jax.encoders import inception
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.formats import tensors
from ssldiff_jax.weights import names
from ssldiff_jax.weights.tables import inception as tables


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("fid_inception_features")


@pytest.fixture(scope="module")
def state(recorded):
    return inception_weights.drawn(recorded.spec["convolutions"])


def close(found, expected, tolerance=2e-6):
    """Largest error over the largest value."""
    error = np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected))
    assert error < tolerance, f"relative error {error:.2e}"


def test_features_are_those_of_pytorch_fid(recorded, state, tmp_path):
    path = tmp_path / "pt_inception-2015-12-05.safetensors"
    unused = {
        "fc.weight": np.zeros((1008, 2048), np.float32),
        "fc.bias": np.zeros(1008, np.float32),
        "Mixed_7c.branch1x1.bn.num_batches_tracked": np.zeros((), np.int64),
    }
    save_file(state | unused, path)
    extract = networks.load(networks.FID_INCEPTION, path, batch_size=1)
    found = extract(recorded.image("image"))
    assert found.shape == (1, extract.dim)
    assert found.dtype == np.float32
    close(found, recorded.outputs["pool3"])


def test_images_are_resized_as_pytorch_fid_does(recorded):
    rows = (np.asarray(inception.prepare(recorded.image("image")))[:, ::32] + 1) / 2
    np.testing.assert_allclose(rows, recorded.image("resize_rows"), atol=1e-6)
    # Wider or higher than 299: no pixel between is looked at, as torch has it by default.
    large = np.random.default_rng(3).integers(0, 256, (1, 3, 401, 330), np.uint8)
    rows = (np.asarray(inception.prepare(np.moveaxis(large, 1, -1)))[:, ::64] + 1) / 2
    np.testing.assert_allclose(rows, recorded.image("resize_large_rows"), atol=1e-6)


def test_an_image_of_the_right_size_is_only_scaled():
    image = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    np.testing.assert_allclose(inception.prepare(image), image / 127.5 - 1.0, atol=1e-6)


def test_names_and_a_block_recorded_on_their_own(golden):
    recorded = golden("fid_inception")
    published = recorded.spec["network_names_and_shapes"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), tables.abstract_inception())
    ours = {name: list(t.shape) for name, t in tables.inception_names().save(zeros).items()}
    skipped = {name for name in published if name.endswith("tracked") or name.startswith("fc.")}
    assert ours == {name: shape for name, shape in published.items() if name not in skipped}

    block = inception.BlockA(8)
    x = recorded.image("blockA_x")
    weights = {n.removeprefix("blockA."): value for n, value in recorded.weights.items()}
    table = names.NameMap(
        tuple(
            line
            for branch in {n.partition(".")[0] for n in weights}
            for line in tables.layer_names(branch)
        ),
        ignored=(r".*tracked",),
    )
    params = table.load(weights, names.abstract(block, x), "blockA")
    close(block.apply({"params": params}, x), recorded.image("blockA"))


def test_a_file_of_another_network_is_one_line(state, tmp_path):
    path = tmp_path / "inception.safetensors"
    other = {k: v for k, v in state.items() if k != "Mixed_6c.branch7x7_2.conv.weight"}
    other["Mixed_5b.branch_pool.bn.bias"] = np.zeros(31, np.float32)
    save_file(other, path)
    message = (
        r"inception\.safetensors does not fit the model; "
        r"1 missing: Mixed_6c\.branch7x7_2\.conv\.weight; "
        r"1 misshaped: Mixed_5b\.branch_pool\.bn\.bias \(31,\)$"
    )
    with pytest.raises(tensors.WeightsError, match=message):
        tables.load_inception(path)


def test_a_file_that_is_missing_or_holds_objects_is_one_line(tmp_path):
    with pytest.raises(tensors.WeightsError, match=r"no such file of weights: .*absent\.pth"):
        tables.load_inception(tmp_path / "absent.pth")
    path = tmp_path / "module.pth"
    torch_writer.TorchFile().write(path, {"model": torch_writer.Named("os system"), "epoch": 3})
    with pytest.raises(tensors.WeightsError, match=r"module\.pth does not fit the model; 470 miss"):
        tables.load_inception(path)
