import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.diffusion import conditioning, unet

TINY = unet.UNetConfig(
    latent_channels=2,
    # More than one for each of 32 groups, or the norm would take out the timestep's shift.
    channels=64,
    channel_mult=(1, 1),
    num_res_blocks=1,
    attention_levels=(),
    num_heads=2,
    context_dim=8,
    conditioning="cross_attention",
)
SCALE_SHIFT = unet.UNetConfig(**(vars(TINY) | {"conditioning": "scale_shift"}))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X_T, T, E = normal(0, 2, 8, 8, 2), np.array([3, 700]), normal(1, 2, 6)


def denoiser_of(config):
    return conditioning.Denoiser(conditioning.DenoiserConfig(config, embedding_dim=6))


def random_like(tree, seed=2):
    """No parameter stays at its initial zero or one."""
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([0.3 * normal(seed + i, *x.shape) for i, x in enumerate(leaves)])


def shapes_of(config):
    return jax.eval_shape(denoiser_of(config).init, jax.random.key(0), X_T, T, E)["params"]


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, x_t, t, embedding):
    return denoiser_of(config).apply({"params": params}, x_t, t, embedding)


def test_the_published_unet_has_400_92_million_parameters():
    model = unet.UNet(small_configs.section("denoiser.unet"))
    x_t, t = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32), jnp.zeros(2, jnp.int32)
    tokens = jax.ShapeDtypeStruct((2, 1, 512), jnp.float32)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x_t, t, tokens)
    assert output.shape == x_t.shape
    assert count(variables["params"]) / 1e6 == pytest.approx(400.92, abs=0.01)


def test_an_untrained_denoiser_predicts_nothing():
    model = denoiser_of(TINY)
    # Cheap to compile, unlike the default generator.
    key = jax.random.key(0, impl="rbg")
    params = jax.jit(model.init)(key, X_T, T, E)["params"]
    output = apply(TINY, params, X_T, T, E)
    assert output.shape == X_T.shape
    np.testing.assert_array_equal(output, 0)


def attention_gradients(num_tokens):
    """Largest gradient of a random cross attention's projections."""
    model, x, tokens = unet.Attention(num_heads=2), normal(3, 2, 5, 4), normal(5, 2, num_tokens, 6)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), x, tokens)["params"])
    wanted = normal(6, *x.shape)
    error = lambda p: jnp.sum(wanted * model.apply({"params": p}, x, tokens))
    grads = jax.jit(jax.grad(error))(params)
    return {name: np.abs(grads[name]["kernel"]).max() for name in "qkv"}


def test_one_token_leaves_nothing_to_attend_to():
    """Softmax over one token is 1: queries and keys have no say, values do."""
    grads = attention_gradients(num_tokens=1)
    assert grads["q"] == grads["k"] == 0
    assert grads["v"] > 0.1
    assert min(attention_gradients(num_tokens=2).values()) > 1e-3


def test_conditioner():
    one, root = (conditioning.Conditioner(5, 6, length) for length in ("one", "root_dim"))
    params = {"token": {"kernel": normal(0, 6, 5), "bias": normal(1, 5)}}
    e = np.concatenate([E, 7 * E, np.zeros((1, 6), np.float32)])
    token = np.asarray(one.apply({"params": params}, e))
    assert token.shape == (5, 1, 5)
    unit = E / np.linalg.norm(E, axis=-1, keepdims=True)
    expected = unit @ params["token"]["kernel"] + params["token"]["bias"]
    np.testing.assert_allclose(token[:2, 0], expected, atol=1e-6)
    np.testing.assert_allclose(token[2:4], token[:2], atol=1e-6)
    # The null embedding's token is the bias.
    np.testing.assert_array_equal(token[4, 0], params["token"]["bias"])
    longer = np.asarray(root.apply({"params": params}, e))
    bias = params["token"]["bias"]
    np.testing.assert_allclose(longer - bias, 6**0.5 * (token - bias), atol=1e-5)


def test_the_null_embedding_has_a_finite_gradient():
    params = {"token": {"kernel": normal(0, 6, 5), "bias": normal(1, 5)}}
    apply = lambda e: conditioning.Conditioner(5, 6).apply({"params": params}, e).sum()
    assert np.all(np.isfinite(jax.grad(apply)(np.zeros((1, 6), np.float32))))


@pytest.mark.parametrize("config", [TINY, SCALE_SHIFT], ids=["cross_attention", "scale_shift"])
def test_the_prediction_follows_embedding_and_timestep(config):
    shapes = shapes_of(config)
    names = {key.key for path, _ in jax.tree_util.tree_leaves_with_path(shapes) for key in path}
    assert ("cross_attention" in names) == (config.conditioning == "cross_attention")
    assert ("token_in" in names) == (config.conditioning == "scale_shift")

    params = random_like(shapes)
    run = lambda *inputs: np.asarray(apply(config, params, *inputs))
    base = run(X_T, T, E)
    for changed in (run(X_T, T, E[::-1]), run(X_T, T + 5, E), run(X_T, T, 0 * E)):
        assert np.abs(changed - base).max() > 1e-3 * np.abs(base).max()
    # One example does not see another.
    mixed = run(np.stack([X_T[0], X_T[0]]), np.array([T[0], 9]), np.stack([E[0], E[0]]))
    np.testing.assert_allclose(mixed[0], base[0], rtol=1e-3, atol=1e-4 * np.abs(base).max())
