import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.autoencoder import autoencoder, conv, discriminator, light, loss, vq
from ssldiff_jax.core import layers, tasks

LIGHT = light.LightConfig(latent_channels=3, channels=8, num_blocks=1, downsample_factor=4)
CONV = conv.ConvConfig(
    latent_channels=2, channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, latent_conv="1x1"
)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def config_of(kind):
    return autoencoder.AutoencoderConfig(
        kind, 3, CONV, small_configs.section("autoencoder.model.vq", num_codes=16), LIGHT
    )


def shapes_of(kind, image):
    """A reconstruction and parameters, by shape alone."""
    model = autoencoder.Autoencoder(config_of(kind))
    b, h, w, _ = image
    noise = jnp.zeros((b, h // 4, w // 4, config_of(kind).chosen.latent_channels))
    return jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros(image), noise)


@pytest.mark.parametrize(("kind", "channels"), [("kl", 2), ("vq", 2), ("light", 3)])
def test_shapes(kind, channels):
    image = (2, 16, 24, 3)
    found, params = shapes_of(kind, image)
    assert found.image.shape == image
    assert found.z.shape == (2, 4, 6, channels)
    model = autoencoder.Autoencoder(config_of(kind))
    encode = lambda params: model.apply(params, jnp.zeros(image), method=model.encode)
    assert jax.eval_shape(encode, params).shape == (2, 4, 6, 2 * channels)


@pytest.mark.parametrize(
    ("sizes", "factor"),
    [
        (
            small_configs.section("autoencoder.model.conv"),
            4,
        ),
        (small_configs.section("autoencoder.model.conv", channel_mult=(1,)), 1),
        (small_configs.section("autoencoder.model.conv", channel_mult=(1, 2, 4, 4)), 8),
        (small_configs.section("autoencoder.model.light", downsample_factor=8), 8),
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


@pytest.mark.parametrize("contrast", [0.5, 0.1, 2.0])
def test_spectrum_loss_is_the_logarithm_of_contrast(contrast):
    """Whatever the mean and wherever the detail lies: far above rounding, all amplitudes change by
    the same factor."""
    noise = 100 * normal(0, 2, 32, 48, 3)
    value = loss.spectrum_loss(0.3 + contrast * noise, noise)
    assert float(value) == pytest.approx(abs(np.log(contrast)), rel=2e-2)


def test_spectrum_loss_against_a_discrete_fourier_transform():
    """By sums over pixels, of one square among those of an image whose sides hold a rest."""
    x, y = 0.1 * normal(0, 1, 37, 20, 3), 0.1 * normal(1, 1, 37, 20, 3)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 15)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(16), np.arange(16)) / 16)

    def amplitudes(image, top):
        square = image[0, top : top + 16, :16].astype(np.float64).mean(axis=-1)
        square = (square - square.mean()) * window[:, None] * window
        return np.abs(waves @ square @ waves.T)[:, :9]

    expected = [
        np.abs(np.log(np.hypot(amplitudes(x, top), 0.05) / np.hypot(amplitudes(y, top), 0.05)))
        for top in (0, 16)
    ]
    assert float(loss.spectrum_loss(x, y)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_spectrum_loss_of_a_flat_image_has_a_gradient():
    flat, noise = jnp.zeros((1, 16, 16, 3)), normal(0, 1, 16, 16, 3)
    gradient = jax.grad(lambda x: loss.spectrum_loss(x, noise))(flat)
    assert np.isfinite(gradient).all()
    assert float(loss.spectrum_loss(flat, flat)) == 0


def test_feature_distance_is_two_minus_two_cosines():
    x, y = normal(0, 2, 4, 4, 3), normal(1, 2, 4, 4, 3)
    tokens = lambda image: image.reshape(2, 16, 3)
    cosines = np.sum(tokens(x) * tokens(y), axis=-1)
    cosines /= np.linalg.norm(tokens(x), axis=-1) * np.linalg.norm(tokens(y), axis=-1)
    distance = loss.feature_distance(tokens)
    assert float(distance(x, y)) == pytest.approx(np.mean(2 - 2 * cosines), rel=1e-4)
    assert float(distance(x, 3 * x)) < 1e-6


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


def random_params(kind):
    leaves, structure = jax.tree.flatten(shapes_of(kind, (1, 16, 16, 3))[1]["params"])
    return structure.unflatten([0.2 * normal(i, *x.shape) for i, x in enumerate(leaves)])


def products(jaxpr):
    """Dtypes of the operands of all convolutions and matrix products of a program."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            found.append(tuple(str(var.aval.dtype) for var in equation.invars))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                found += products(inner) if hasattr(inner, "eqns") else []
    return found


@pytest.mark.parametrize("kind", ["kl", "vq", "light"])
def test_a_decoder_cast_to_bfloat16_computes_in_it(kind):
    """All products, but for the distances to codes: those are chosen in float32. Of unit latents
    the image differs by less than the rounding of a handful of layers, 2⁻⁸ each."""
    params, channels = random_params(kind), config_of(kind).chosen.latent_channels
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    trained = autoencoder.TrainedAutoencoder(config_of(kind), params, scaling)
    half, latents = layers.cast(params, "bfloat16"), normal(9, 2, 4, 4, channels)
    dtypes = products(jax.make_jaxpr(trained.decode)(half, latents).jaxpr)
    exact = [pair for pair in dtypes if pair != ("bfloat16", "bfloat16")]
    assert exact == ([("float32", "float32")] if kind == "vq" else [])
    assert len(dtypes) >= 4
    rounded, found = (
        jax.jit(trained.decode)(half, latents),
        jax.jit(trained.decode)(params, latents),
    )
    assert rounded.dtype == found.dtype == np.float32
    error = np.sqrt(np.mean((rounded - found) ** 2) / np.mean(found**2))
    assert 0 < error < 8 * 2**-8


def weights_of(adversarial=0.0, start_step=0):
    return loss.LossConfig(
        gradient_weight=2.0,
        spectrum_weight=4.0,
        perceptual="encoder",
        perceptual_weight=3.0,
        lpips_weights="",
        kl_weight=0.5,
        codebook_weight=1.0,
        adversarial=discriminator.AdversarialConfig(adversarial, start_step, 8, 2),
    )


def unit_distance(params, x, y):
    return loss.feature_distance(lambda image: params * image.reshape(2, -1, 3))(x, y)


def batch_of(seed=0):
    image_uint8 = np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), np.uint8)
    return {"pixels": image_uint8, "index": np.arange(2)}


def test_the_loss_is_its_terms():
    batch = batch_of()
    task = loss.AutoencoderTask(
        config_of("light"), weights_of(), unit_distance, 1.0, tasks.images(16)
    )
    start = {"perceptual": 1.0, "step": jnp.zeros(())}
    run = jax.jit(lambda params, key: task.loss(params, batch, key, ema_params=None, extra=start))
    params = {"autoencoder": jax.tree.map(jnp.zeros_like, light_params())}
    value, terms, extra = run(params, jax.random.key(0))

    # With no weights the image is grey and the posterior N(0, 1).
    image = np.asarray(layers.to_image(batch["pixels"]))
    assert float(terms["l1"]) == pytest.approx(np.abs(image).mean(), rel=1e-4)
    assert float(terms["psnr"]) == pytest.approx(-10 * np.log10(np.mean(image**2) / 4), rel=1e-4)
    assert float(terms["kl"]) == 0
    assert float(terms["perceptual"]) == pytest.approx(1, rel=1e-3)
    total = terms["l1"] + 2 * terms["gradient"] + 3 * terms["perceptual"] + 4 * terms["spectrum"]
    assert float(value) == pytest.approx(float(total), rel=1e-5)
    assert extra == {"perceptual": 1.0, "step": 1.0}


def test_the_nearest_code_by_one_product_is_the_nearest():
    z, codebook = normal(0, 2, 5, 4, 3), normal(1, 16, 3)
    distances = np.sum((z[..., None, :] - codebook) ** 2, axis=-1)
    np.testing.assert_array_equal(vq.nearest_code(z, codebook), np.argmin(distances, axis=-1))


def test_the_quantiser_passes_gradients_straight_through():
    model = vq.Quantiser(
        small_configs.section("autoencoder.model.vq", num_codes=16, commitment=0.25), 3
    )
    z, codebook = normal(0, 2, 3, 3, 3), normal(1, 16, 3)
    call = lambda z, codebook: model.apply({"params": {"codebook": codebook}}, z)
    found = call(z, codebook)
    np.testing.assert_allclose(found.z, codebook[found.index], atol=1e-6)
    weigh = normal(2, *z.shape)
    through = jax.grad(lambda z: jnp.sum(call(z, codebook).z * weigh))(z)
    np.testing.assert_allclose(through, weigh, atol=1e-6)

    # The loss moves codes towards latents, and latents a quarter as much towards codes.
    gap = z - codebook[np.asarray(found.index)]
    assert float(found.loss) == pytest.approx(1.25 * np.mean(gap**2), rel=1e-5)
    to_z = jax.grad(lambda z: call(z, codebook).loss)(z)
    np.testing.assert_allclose(to_z, 0.25 * 2 * gap / gap.size, atol=1e-6)
    to_codes = jax.grad(lambda c: call(z, c).loss)(codebook)
    used = np.zeros_like(codebook)
    np.add.at(used, np.asarray(found.index).reshape(-1), (-2 * gap / gap.size).reshape(-1, 3))
    np.testing.assert_allclose(to_codes, used, atol=1e-6)


def test_usage_and_perplexity():
    index = np.array([[[0, 0], [3, 3]]])
    fractions = vq.usage(index, 4)
    np.testing.assert_allclose(fractions, [0.5, 0, 0, 0.5])
    assert float(vq.perplexity(fractions)) == pytest.approx(2.0)
    assert float(vq.perplexity(np.full(7, 1 / 7))) == pytest.approx(7.0, rel=1e-5)


def test_only_dead_codes_start_again():
    codebook, latents = normal(0, 4, 2), normal(1, 4, 2)
    fractions = np.array([0.5, 0.005, 0.49, 0.005])
    found = np.asarray(vq.revive(codebook, fractions, latents, dead_below=0.03))
    np.testing.assert_array_equal(found[[1, 3]], latents[[1, 3]])
    np.testing.assert_array_equal(found[[0, 2]], codebook[[0, 2]])


@pytest.fixture(scope="module")
def adversarial():
    """A VQ autoencoder with a discriminator that enters at step 2, its state and its loss."""
    weights = weights_of(adversarial=0.5, start_step=2)
    task = loss.AutoencoderTask(config_of("vq"), weights, unit_distance, 1.0, tasks.images(16))
    params, extra = jax.jit(task.init)(jax.random.key(0), batch_of())

    def loss_of(params, extra):
        output = task.loss(params, batch_of(), KEY, ema_params=None, extra=extra)
        return output.loss, (output.metrics, output.extra)

    grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    at = lambda step: grad(params, extra | {"step": jnp.float32(step)})
    return task, params, at


KEY = jax.random.key(1)


def test_the_discriminator_waits_for_its_step(adversarial):
    _, _, at = adversarial
    (before, (terms, _)), grads = at(1)
    assert all(not np.any(g) for g in jax.tree.leaves(grads["discriminator"]))
    plain = terms["l1"] + 2 * terms["gradient"] + 4 * terms["spectrum"]
    plain += 3 * terms["perceptual"] + terms["codebook"]
    assert float(before) == pytest.approx(float(plain), rel=1e-5)
    (after, (terms, _)), grads = at(2)
    assert any(np.any(g) for g in jax.tree.leaves(grads["discriminator"]))
    added = 0.5 * terms["balance"] * terms["generator"] + terms["discriminator"]
    assert float(after) == pytest.approx(float(plain + added), rel=1e-4)


def test_the_adaptive_weight_balances_gradients_at_the_last_layer(adversarial):
    task, params, at = adversarial
    (_, (terms, _)), _ = at(2)
    image, noise = layers.to_image(batch_of()["pixels"]), jnp.zeros((2, 4, 4, 2))
    model = autoencoder.Autoencoder(task.config)

    def size(of):
        """The norm of a loss's gradient, all the way through the model."""

        def value(kernel):
            decoder = params["autoencoder"]["decoder"]
            last = decoder["conv_out"] | {"kernel": kernel}
            changed = params["autoencoder"] | {"decoder": decoder | {"conv_out": last}}
            return of(model.apply({"params": changed}, image, noise).image)

        kernel = params["autoencoder"]["decoder"]["conv_out"]["kernel"]
        return float(jnp.linalg.norm(jax.grad(value)(kernel)))

    reconstruction = size(
        lambda x: (
            jnp.mean(jnp.abs(x - image))
            + 2 * loss.gradient_loss(x, image)
            + 4 * loss.spectrum_loss(x, image)
            + 3 * unit_distance(1.0, x, image)
        )
    )
    judge = lambda x: task.adversary.apply({"params": params["discriminator"]}, x)
    generator = size(lambda x: -jnp.mean(judge(x)))
    expected = min(reconstruction / (generator + 1e-4), 1e4)
    assert float(terms["balance"]) == pytest.approx(expected, rel=1e-3)


def test_usage_is_averaged_over_steps_and_dead_codes_move(adversarial):
    task, params, at = adversarial
    (_, (_, after)), _ = at(0)
    assert float(after["step"]) == 1
    assert float(after["usage"].sum()) == pytest.approx(1, rel=1e-5)
    starved = after | {"usage": after["usage"].at[3].set(0.0)}
    settled = task.post_update(params, starved)["autoencoder"]["quantiser"]["codebook"]
    codebook = params["autoencoder"]["quantiser"]["codebook"]
    np.testing.assert_array_equal(settled[3], after["latents"][3])
    np.testing.assert_array_equal(np.delete(settled, 3, 0), np.delete(codebook, 3, 0))


def test_hinge_loss():
    real, fake = np.array([2.0, 0.5]), np.array([-3.0, 0.0])
    shape = (2, 1, 1, 1)
    found = discriminator.hinge_loss(real.reshape(shape), fake.reshape(shape))
    assert float(found) == pytest.approx(0.5 * (0.25 + 0.5))
