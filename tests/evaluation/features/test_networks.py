"""Extractors: batches, what each is built from, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from ssldiff_jax.encoders import encoder, known, pixels, vit
from ssldiff_jax.evaluation.features import networks
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights import names, published

SIZES = vit.ViTConfig(16, 8, 12, 1, 2, "class", vit.PLAIN)


def images(count, height=16, width=16):
    shape = (count, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def drawn(seed=0):
    """Parameters of a small ViT."""
    rng = np.random.default_rng(seed)
    like = names.abstract(vit.ViT(SIZES), jnp.zeros((1, 16, 16, 3)))
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), like)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A published encoder that is small, and its file."""
    entry = known.KnownEncoder(
        SIZES,
        pixels.Pixels(16, pixels.IMAGENET_MEAN, pixels.IMAGENET_STD),
        "timm",
        "a licence",
        "a place",
    )
    monkeypatch.setitem(known.ENCODERS, "tiny", entry)
    save_file(published.encoder_names(SIZES, "timm").save(drawn()), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def colours(batch_size, traced=None):
    """Mean colours times a matrix."""

    def program(params, image_uint8):
        if traced is not None:
            traced.append(image_uint8.shape)
        return jnp.mean(image_uint8.astype(jnp.float32), axis=(1, 2)) @ params

    matrix = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    return networks.Batched("colours", "0", 5, program, matrix, batch_size)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_batches_do_not_show(count):
    extract, found = colours(2), images(count)
    features = extract(found)
    assert isinstance(extract, networks.Extractor)
    assert features.dtype == np.float32
    expected = found.astype(np.float32).mean(axis=(1, 2)) @ extract.params
    np.testing.assert_allclose(features, expected.reshape(count, 5), rtol=1e-5)
    np.testing.assert_array_equal(extract(list(found)), features)


def test_one_trace_for_each_size_of_images():
    traced = []
    extract = colours(3, traced)
    for count, height in ((1, 16), (7, 16), (3, 16), (4, 24)):
        extract(images(count, height))
    assert traced == [(3, 16, 16, 3), (3, 24, 16, 3)]


def test_images_must_be_of_one_size():
    mixed = [images(1, 16)[0], images(1, 24)[0], images(1, 16)[0]]
    message = r"images must be of one size, got 2: \(16, 16, 3\), \(24, 16, 3\)"
    with pytest.raises(ValueError, match=message):
        networks.one_size(mixed)
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\), got float32 \(1, 16, 16, 3\)"):
        networks.one_size(images(1).astype(np.float32))
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\), got uint8 \(1, 16, 16, 4\)"):
        networks.one_size([np.zeros((16, 16, 4), np.uint8)])


def test_the_encoder_of_a_run(tiny):
    model = encoder.Encoder(
        encoder.Architecture(SIZES, pixels.Pixels(16)), drawn(), np.ones(12), batch_size=2
    )
    extract = networks.OfEncoder("encoder", model)
    assert isinstance(extract, networks.Extractor)
    assert (extract.name, extract.dim) == ("encoder", 12)
    found = images(3)
    np.testing.assert_array_equal(extract(found), model(found))
    assert extract.digest == networks.OfEncoder("judge", model).digest
    # The same weights see something else with other heads.
    heads = dataclasses.replace(SIZES, num_heads=2 if SIZES.num_heads == 1 else 1)
    other = encoder.Encoder(
        encoder.Architecture(heads, pixels.Pixels(16)), model.params, model.origin
    )
    assert networks.OfEncoder("encoder", other).digest != extract.digest
    moved = networks.OfEncoder("encoder", model.measured_from(np.zeros(12)))
    assert moved.digest != extract.digest
    with pytest.raises(ValueError, match="patches must be 16×16×3"):
        extract(images(1, 24))


def test_products_are_exact_to_float32_whatever_the_device():
    """Else some devices multiply in bfloat16."""
    seen = []

    class Watched(encoder.Architecture):
        def embed(self, params, image):
            seen.append(jax.config.jax_default_matmul_precision)
            return super().embed(params, image)

    model = encoder.Encoder(Watched(SIZES, pixels.Pixels(16)), drawn(), batch_size=2)
    networks.OfEncoder("encoder", model)(images(3))
    traced = []

    def program(params, image_uint8):
        traced.append(jax.config.jax_default_matmul_precision)
        return jnp.zeros((len(image_uint8), 5))

    networks.Batched("zeros", "0", 5, program, np.zeros(1), 2)(images(3))
    assert seen == traced == ["highest"]


def test_a_published_encoder_of_a_file(tiny):
    extract = networks.load("tiny", tiny, batch_size=2)
    assert (extract.name, extract.dim) == ("tiny", 12)
    found = images(3)
    architecture = encoder.Architecture.named("tiny", SIZES)
    expected = encoder.Encoder(architecture, drawn(), batch_size=3)(found)
    np.testing.assert_allclose(extract(found), expected, rtol=1e-4, atol=1e-5)
    same, other = (networks.OfEncoder("x", encoder.Encoder(architecture, drawn(i))) for i in (0, 1))
    assert extract.digest == same.digest != other.digest


def test_what_is_no_network_is_one_line(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"one of fid-inception, clip, .*hipt, .*, got 'vgg'"):
        networks.load("vgg", tiny)
    for name in ("tiny", networks.FID_INCEPTION):
        with pytest.raises(reader.WeightsError, match=r"no such file of weights: .*absent\.pth"):
            networks.load(name, tmp_path / "absent.pth")
    tensors = published.encoder_names(SIZES, "timm").save(drawn())
    del tensors["blocks.0.mlp.fc1.bias"]
    save_file(tensors | {"norm.bias": np.zeros(7, np.float32)}, tiny)
    message = (
        r"tiny\.safetensors does not fit the model; 1 missing: blocks\.0\.mlp\.fc1\.bias; "
        r"1 misshaped: norm\.bias \(7,\)$"
    )
    with pytest.raises(reader.WeightsError, match=message):
        networks.load("tiny", tiny)
    save_file(tensors | {"pos_embed": np.zeros((1, 7, 12), np.float32)}, tiny)
    with pytest.raises(reader.WeightsError, match=r"5 positions, got .* 7 positions$"):
        networks.load("tiny", tiny)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(reader.WeightsError, match=r"empty: expected one of model\.safetensors"):
        networks.load("tiny", empty)
    with pytest.raises(reader.WeightsError, match=r"empty must hold a CLIP, got no config\.json"):
        networks.load(networks.CLIP, empty)
