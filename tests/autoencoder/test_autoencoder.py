import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.autoencoder import autoencoder, kl, light, loss
from ssldiff_jax.core import layers

LIGHT = light.LightConfig(latent_channels=3, channels=8, num_blocks=1, downsample_factor=4)
KL = kl.KLConfig(latent_channels=2, channels=8, channel_mult=(1, 2, 2), num_res_blocks=1)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def config_of(kind):
    return autoencoder.AutoencoderConfig(kind, KL, LIGHT)


def shapes_of(kind, image):
    """Parameters and (image, moments), by shape alone."""
    model = autoencoder.Autoencoder(config_of(kind))
    b, h, w, _ = image
    noise = jnp.zeros((b, h // 4, w // 4, config_of(kind).chosen.latent_channels))
    return jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros(image), noise)


@pytest.mark.parametrize(("kind", "channels"), [("kl", 2), ("light", 3)])
def test_shapes(kind, channels):
    image = (2, 16, 24, 3)
    (found, moments), _ = shapes_of(kind, image)
    assert found.shape == image
    assert moments.shape == (2, 4, 6, 2 * channels)


@pytest.mark.parametrize(
    ("sizes", "factor"),
    [
        (kl.KLConfig(), 4),
        (kl.KLConfig(channel_mult=(1,)), 1),
        (kl.KLConfig(channel_mult=(1, 2, 4, 4)), 8),
        (light.LightConfig(downsample_factor=8), 8),
    ],
)
def test_downsample_factor(sizes, factor):
    assert sizes.downsample_factor == factor


def test_kl_divergence_is_the_closed_form():
    mean, logvar = normal(0, 3, 2, 4, 5), normal(1, 3, 2, 4, 5)
    moments = np.concatenate([mean, logvar], axis=-1)
    each = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)
    found = float(autoencoder.kl_divergence(moments))
    assert found == pytest.approx(each.sum(axis=-1).mean(), rel=1e-5)
    assert float(autoencoder.kl_divergence(np.zeros_like(moments))) == 0


def test_sample_moments():
    mean, logvar, noise = (normal(i, 2, 3, 3, 4) for i in range(3))
    moments = np.concatenate([mean, logvar], axis=-1)
    found = autoencoder.sample_moments(moments, noise)
    np.testing.assert_allclose(found, mean + np.exp(logvar / 2) * noise, atol=1e-5)
    np.testing.assert_array_equal(autoencoder.sample_moments(moments, 0 * noise), mean)
    wild = np.concatenate([mean, 0 * mean + 1000], axis=-1)
    assert np.all(np.isfinite(autoencoder.sample_moments(wild, noise)))


def test_latent_scaling_whitens_and_inverts():
    scaling = autoencoder.LatentScaling((0.5, 4.0), (-1.0, 3.0))
    z = normal(0, 2, 64, 64, 2) / np.float32([0.5, 4.0]) + np.float32([-1.0, 3.0])
    latents = np.asarray(scaling.apply(z))
    np.testing.assert_allclose(latents.mean(axis=(0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(latents.std(axis=(0, 1, 2)), 1, atol=0.05)
    np.testing.assert_allclose(scaling.invert(latents), z, atol=1e-5)


gradient_loss = jax.jit(loss.gradient_loss)


def test_gradient_loss_ignores_a_constant():
    x = normal(0, 2, 16, 16, 3)
    assert float(gradient_loss(x, x)) == 0
    assert float(gradient_loss(x, x + np.float32([0.3, -0.2, 0.5]))) < 1e-5
    assert float(gradient_loss(x, normal(1, 2, 16, 16, 3))) > 0.1


def test_gradient_loss_of_a_ramp():
    """A slope of a px is a, 2a and 4a at the three scales, in one of two directions."""
    ramp = np.broadcast_to(0.1 * np.arange(16, dtype=np.float32)[:, None], (1, 16, 16, 3))
    ramp = np.ascontiguousarray(ramp)
    assert float(gradient_loss(ramp, 0 * ramp)) == pytest.approx(0.1 * 7 / 3, rel=1e-4)


def test_gradient_loss_of_sides_that_halve_only_twice():
    """Three scales need two halvings: 12, 6, 3."""
    ramp = np.broadcast_to(0.1 * np.arange(12, dtype=np.float32)[:, None], (1, 12, 12, 3))
    ramp = np.ascontiguousarray(ramp)
    assert float(gradient_loss(ramp, 0 * ramp)) == pytest.approx(0.1 * 7 / 3, rel=1e-4)


def test_feature_loss_is_two_minus_two_cosines():
    x, y = normal(0, 2, 4, 4, 3), normal(1, 2, 4, 4, 3)
    tokens = lambda image: image.reshape(2, 16, 3)
    cosines = np.sum(tokens(x) * tokens(y), axis=-1)
    cosines /= np.linalg.norm(tokens(x), axis=-1) * np.linalg.norm(tokens(y), axis=-1)
    found = float(loss.feature_loss(tokens, x, y))
    assert found == pytest.approx(np.mean(2 - 2 * cosines), rel=1e-4)
    assert float(loss.feature_loss(tokens, x, 3 * x)) < 1e-6


def light_params():
    leaves, structure = jax.tree.flatten(shapes_of("light", (1, 16, 16, 3))[1]["params"])
    return structure.unflatten([0.1 * normal(i, *x.shape) for i, x in enumerate(leaves)])


def test_trained_autoencoder_scales_its_latents():
    scaling, params = autoencoder.LatentScaling((2.0, 0.5, 1.0), (0.1, 0.2, 0.3)), light_params()
    image = normal(0, 1, 16, 16, 3)

    @jax.jit
    def both(params, image):
        plain = autoencoder.TrainedAutoencoder(
            config_of("light"), params, autoencoder.LatentScaling((1.0,) * 3, (0.0,) * 3)
        )
        ours = autoencoder.TrainedAutoencoder(config_of("light"), params, scaling)
        z = plain.encode(params, image)
        latents = ours.encode(params, image)
        return z, latents, plain.decode(params, z), ours.decode(params, latents)

    z, latents, decoded, ours = both(params, image)
    np.testing.assert_allclose(latents, scaling.apply(z), atol=1e-5)
    np.testing.assert_allclose(ours, decoded, atol=1e-4)
    assert np.abs(decoded).max() > 0.01


def test_the_loss_is_its_terms():
    image_uint8 = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    batch = {"image_uint8": image_uint8, "index": np.arange(2)}
    weights = loss.LossConfig(gradient_weight=2.0, perceptual_weight=3.0, kl_weight=0.5)
    tokens = lambda params, image: params * image.reshape(2, 256, 3)
    task = loss.AutoencoderTask(config_of("light"), weights, tokens, 1.0)
    run = jax.jit(lambda params, key: task.loss(params, None, {"features": 1.0}, batch, key))
    params = jax.tree.map(jnp.zeros_like, light_params())
    value, (terms, extra) = run(params, jax.random.key(0))

    # With no weights the image is grey and the posterior N(0, 1).
    image = np.asarray(layers.to_image(image_uint8))
    assert float(terms["l1"]) == pytest.approx(np.abs(image).mean(), rel=1e-4)
    assert float(terms["psnr"]) == pytest.approx(-10 * np.log10(np.mean(image**2) / 4), rel=1e-4)
    assert float(terms["kl"]) == 0
    assert float(terms["perceptual"]) == pytest.approx(1, rel=1e-3)
    total = terms["l1"] + 2 * terms["gradient"] + 3 * terms["perceptual"]
    assert float(value) == pytest.approx(float(total), rel=1e-5)
    assert extra == {"features": 1.0}
