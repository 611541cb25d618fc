"""The networks in bfloat16 and in float32, of random models."""

import dataclasses

import jax
import numpy as np
import pytest

from ssldiff_jax.core import layers, platform


@pytest.fixture(scope="module")
def half(random_generator):
    sample = dataclasses.replace(random_generator.config.sample, compute_dtype="bfloat16")
    return random_generator.with_sample(sample)


def relative(found, expected):
    """Root mean squared error, over that of the expected values' spread."""
    found, expected = np.float32(found), np.float32(expected)
    return np.sqrt(np.mean((found - expected) ** 2)) / expected.std()


def test_auto_is_bfloat16_on_accelerators_alone(random_generator):
    assert random_generator.config.sample.compute_dtype == "auto"
    dtypes = lambda tree: {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}
    for target, expected in (("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")):
        with platform.compile_for(target):
            other = random_generator.with_sample(random_generator.config.sample)
            weights = other.networks.weights(other.trained.params)
            assert dtypes((weights.denoiser, weights.decoder)) == {expected}
            assert dtypes(other.networks.params_like) == {expected}
            embeds = other.planner.from_reference(lambda *at: None, (64, 64)).condition.embed
            assert layers.dtype_of(embeds.params) == expected


def test_bfloat16_changes_an_image_by_its_rounding(random_generator, half):
    """8 bits of mantissa are 2⁻⁸ at every layer; twelve steps of a solver and a decoder later the
    image is off by a few of them, not by what it shows."""
    shape = (2, 3, random_generator.embedding_dim)
    grid = np.random.default_rng(3).standard_normal(shape, np.float32)
    found, exact = (model.generate(grid, seed=7).image for model in (half, random_generator))
    assert 0 < relative(found, exact) < 0.1


def test_a_reference_embedded_in_bfloat16_points_the_same_way(random_generator):
    image = np.random.default_rng(5).integers(0, 256, (128, 128, 3), np.uint8)
    encoder = random_generator.encoder
    rounded = encoder.computing_in("bfloat16")
    assert encoder.computing_in("float32") is encoder
    patches = image.reshape(2, 64, 2, 64, 3).swapaxes(1, 2).reshape(4, 64, 64, 3)
    exact, found = encoder(patches), rounded(patches)
    assert found.dtype == np.float32
    assert 0 < relative(found, exact) < 0.03
    # Its own programs and parameters: the exact one is as it was.
    np.testing.assert_array_equal(encoder(patches), exact)


def test_weights_reach_the_devices_once(random_generator):
    """Those of random models are NumPy, as those of files are."""
    assert all(
        isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(random_generator.trained.params)
    )
    denoiser, decoder = random_generator.weights.on_devices
    placed = jax.tree.leaves((denoiser, decoder))
    assert all(isinstance(leaf, jax.Array) and leaf.committed for leaf in placed)
    again = jax.tree.leaves(random_generator.weights.on_devices)
    assert all(a is b for a, b in zip(placed, again, strict=True))
