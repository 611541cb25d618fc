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


def rings(images):
    """Mean over every ring of pixels, the outermost first, of each image alone."""
    side = images.shape[1]
    place = np.minimum(np.arange(side), np.arange(side)[::-1])
    ring = np.minimum(place[:, None], place)
    return np.stack([images[:, ring == k].mean(axis=(1, 2)) for k in range(side // 2)], axis=1)


def with_context(generator, latents):
    """Networks of a config whose patches are encoded with so many latents around them."""
    crops = generator.config.data.crops
    crops = dataclasses.replace(crops, context_px=latents * generator.config.downsample_factor)
    data = dataclasses.replace(generator.config.data, crops=crops)
    return dataclasses.replace(
        generator.networks, config=dataclasses.replace(generator.config, data=data)
    )


def test_patches_encoded_with_context_are_decoded_without_a_frame(random_generator):
    """Of an even field every pixel sees the same where the decoder's reach, four latents here, is
    mirrored; alone the outermost see zeros."""
    networks, config = random_generator.networks, random_generator.config
    params, factor, side = networks.autoencoder.params, config.downsample_factor, config.window
    colour = np.random.default_rng(0).standard_normal((3, 1, 1, networks.latent_channels))
    even = np.broadcast_to(colour, (3, side, side, networks.latent_channels)).astype(np.float32)
    frames = {}
    for beyond in (0, 4):
        image = np.asarray(with_context(random_generator, beyond).decode_patches(params, even))
        assert image.shape == (3, side * factor, side * factor, 3)
        # Pixels of a latent differ, its neighbours' do not.
        of_latents = image.reshape(3, side, factor, side, factor, 3).mean(axis=(2, 4))
        frames[beyond] = np.abs(np.diff(rings(of_latents), axis=1)).max()
    assert frames[4] < 1e-5 < 1e-3 < frames[0]


@pytest.mark.parametrize("beyond", [0, 1, 3])
def test_a_patch_is_decoded_as_it_was_encoded(random_generator, beyond):
    """Mirrored about its outermost latents as far as it was encoded with what lies around it; one
    that was encoded alone is what the decoder gives."""
    networks, factor = random_generator.networks, random_generator.config.downsample_factor
    params, side = networks.autoencoder.params, random_generator.config.window
    latents = np.random.default_rng(1).standard_normal(
        (2, side, side, networks.latent_channels), np.float32
    )
    at = [abs(i) if i < side else 2 * (side - 1) - i for i in range(-beyond, side + beyond)]
    whole = np.asarray(networks.autoencoder.decode(params, latents[:, at][:, :, at]))
    expected = whole[:, beyond * factor :, beyond * factor :][:, : side * factor, : side * factor]
    found = with_context(random_generator, beyond).decode_patches(params, latents)
    np.testing.assert_allclose(found, expected, atol=1e-6)
