import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.core import attention, layers

NHWC = jax.lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same_convolution(kernel, strides, padding, channels=3, **options):
    """`convolve` against XLA's, in value and in both gradients."""
    defaults = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1}
    options = defaults | options | {"dimension_numbers": NHWC}
    x = normal(0, 2, 9, 8, channels)
    w = normal(1, *kernel, channels // options["feature_group_count"], 6)

    def run(convolution, x, w):
        convolved = lambda x, w: convolution(x, w, strides, padding, **options)
        output, pull = jax.vjp(convolved, x, w)
        return output, *pull(jnp.cos(jnp.arange(output.size)).reshape(output.shape))

    both = jax.jit(lambda *a: (run(layers.convolve, *a), run(jax.lax.conv_general_dilated, *a)))
    for found, expected in zip(*both(x, w), strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (1, 1, "VALID"),
        (1, 2, "SAME"),
        (1, 2, [(0, 1), (0, 1)]),
        (3, 1, "VALID"),
        (3, 1, "SAME"),
        (3, 1, [(1, 1), (1, 1)]),
        (3, 2, "VALID"),
        (3, 2, "SAME"),
        (3, 2, [(1, 1), (1, 1)]),
        (3, 2, [(0, 1), (0, 1)]),
    ],
)
def test_convolve_is_the_convolution(kernel, stride, padding):
    assert_same_convolution((kernel, kernel), (stride, stride), padding)


@pytest.mark.parametrize(
    "case",
    [
        {"kernel": (2, 3), "strides": (2, 1), "padding": [(2, 0), (0, 3)]},
        {"kernel": (4, 4), "strides": (4, 4), "padding": "VALID"},
        {"kernel": (3, 3), "strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 2)},
        {"kernel": (3, 3), "strides": (1, 1), "padding": "SAME", "feature_group_count": 3},
        {"kernel": (3, 3), "strides": (1, 1), "padding": [(1, 1)] * 2, "lhs_dilation": (2, 2)},
    ],
    ids=["uneven", "patches", "dilated kernel", "groups", "dilated input"],
)
def test_convolve_in_rarer_forms(case):
    assert_same_convolution(**case)


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
