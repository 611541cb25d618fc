import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.core import attention, layers


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(
    shape=st.tuples(*[st.integers(1, 3)] * 4),
    factor=st.integers(1, 4),
)
@settings(max_examples=15, deadline=None)
def test_pixel_shuffle_inverts_pixel_unshuffle(shape, factor):
    b, h, w, c = shape
    x = np.random.default_rng(0).normal(size=(b, h * factor, w * factor, c)).astype(np.float32)
    folded = layers.pixel_unshuffle(jnp.asarray(x), factor)
    assert folded.shape == (b, h, w, c * factor**2)
    np.testing.assert_array_equal(layers.pixel_shuffle(folded, factor), x)
    # A block's pixels lie in reading order.
    np.testing.assert_array_equal(folded[0, 0, 0], x[0, :factor, :factor].ravel())


def test_upsampled_pixels_are_blocks():
    x = normal(0, 1, 2, 3, 2)
    up = layers.upsample_nearest(jnp.asarray(x))
    assert up.shape == (1, 4, 6, 2)
    for i, j in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        np.testing.assert_array_equal(up[:, i::2, j::2], x)


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_timestep_embedding_is_cos_then_sin(dim):
    t = np.array([0, 1, 37, 999])
    angles = t[:, None] * 10_000.0 ** (-np.arange(dim // 2) / (dim // 2))
    found = layers.timestep_embedding(jnp.asarray(t, jnp.float32), dim)
    np.testing.assert_allclose(found, np.hstack([np.cos(angles), np.sin(angles)]), atol=1e-3)


def test_images_keep_all_256_values():
    x = np.arange(256, dtype=np.uint8)
    image = layers.to_image(x)
    assert (image.min(), image.max()) == (-1, 1)
    np.testing.assert_array_equal(layers.to_uint8(image), x)


def test_to_uint8_rounds_and_clips():
    np.testing.assert_array_equal(
        layers.to_uint8(jnp.array([-7.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 7.0])), [0, 1, 0, 255]
    )


@pytest.mark.parametrize(("channels", "groups"), [(192, 32), (48, 24), (16, 16), (33, 11)])
def test_group_norm_takes_the_most_groups_that_divide(channels, groups):
    assert layers.group_norm(channels, epsilon=1e-5, name="norm").num_groups == groups


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_group_norm_is_flaxs(size):
    x, weight = size * (normal(0, 2, 5, 4, 12) + 0.5), normal(3, 2, 5, 4, 12)
    params = {"scale": 1 + normal(1, 12), "bias": normal(2, 12)}
    ours = layers.GroupNorm(4, epsilon=1e-6)
    theirs = nn.GroupNorm(num_groups=4, epsilon=1e-6)

    def run(module):
        total = lambda x, p: jnp.sum(weight * jnp.tanh(module.apply({"params": p}, x)))
        return module.apply({"params": params}, x), *jax.grad(total, argnums=(0, 1))(x, params)

    found, expected = run(ours), run(theirs)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1] * size, expected[1] * size, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found[2], expected[2])


def test_group_norm_in_half_precision_measures_in_single():
    x = (100 + normal(0, 1, 8, 8, 8)).astype(jnp.bfloat16)
    found = layers.GroupNorm(4, epsilon=1e-6).init_with_output(jax.random.key(0), x)[0]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found).std(), 1, atol=0.05)


def test_attend_is_dot_product_attention():
    heads = 3
    q, k, v = normal(0, 2, 5, 12), normal(1, 2, 7, 12), normal(2, 2, 7, 12)

    def reference(q, k, v):
        q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
        return jax.nn.dot_product_attention(q, k, v).reshape(2, 5, 12)

    def run(attend):
        output, pull = jax.vjp(attend, q, k, v)
        return output, *pull(normal(3, 2, 5, 12))

    both = jax.jit(lambda: (run(lambda *x: attention.attend(*x, heads)), run(reference)))
    for found, expected in zip(*both(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_attention_to_one_token_is_its_value():
    q, k, v = normal(0, 2, 5, 12), normal(1, 2, 1, 12), normal(2, 2, 1, 12)
    found = jax.jit(attention.attend, static_argnums=3)(q, k, v, 3)
    np.testing.assert_array_equal(found, np.broadcast_to(v, (2, 5, 12)))


def centred(x, groups, epsilon):
    """Group norm in float64, from differences."""
    rows = x.astype(np.float64).reshape(len(x), -1, groups, x.shape[-1] // groups)
    rows = rows - rows.mean(axis=(1, 3), keepdims=True)
    return (rows / np.sqrt(rows.var(axis=(1, 3), keepdims=True) + epsilon)).reshape(x.shape)


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("mean", [0, 100, 1000, 10000])
def test_group_norm_knows_deviations_far_below_the_mean(mean, groups):
    """And its gradient, which is of the same differences."""
    x = (mean + normal(0, 2, 16, 16, 8)).astype(np.float32)
    norm = layers.GroupNorm(groups, epsilon=1e-5)
    params = norm.init(jax.random.key(0), x)
    weight = normal(1, 2, 16, 16, 8)
    rounding = mean * 2.0**-22  # of values themselves
    found, pull = jax.vjp(lambda x: norm.apply(params, x), x)
    np.testing.assert_allclose(found, centred(x, groups, 1e-5), atol=1e-5 + rounding)

    step = 1e-3 * normal(2, 2, 16, 16, 8)
    moved = [centred(x.astype(np.float64) + s * step, groups, 1e-5) for s in (1, -1)]
    expected = np.sum((moved[0] - moved[1]) * weight) / 2
    assert np.sum(np.asarray(pull(weight)[0]) * step) == pytest.approx(
        expected, rel=0.01, abs=0.01 * (1e-3 + rounding)
    )


def test_group_norm_of_flat_channels_is_their_bias():
    """Groups of one channel of a blank image: nothing but rounding is left, and stays small."""
    x = np.broadcast_to(np.float32([0.1, 30.3, -7.7, 1234.5]), (1, 64, 64, 4))
    found = layers.GroupNorm(4, epsilon=1e-6).init_with_output(jax.random.key(0), x)[0]
    assert np.abs(np.asarray(found)[..., :3]).max() < 0.01
    faint = x + np.float32(0.01) * normal(3, 1, 64, 64, 4)
    found = layers.GroupNorm(4, epsilon=1e-6).init_with_output(jax.random.key(0), faint)[0]
    np.testing.assert_allclose(np.asarray(found).std(axis=(1, 2)), 1, atol=0.02)
