"""Every form of the convolution is XLA's, forward and in both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.core import convolution, platform

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

    both = jax.jit(
        lambda *a: (run(convolution.convolve, *a), run(jax.lax.conv_general_dilated, *a))
    )
    found, expected = both(x, w)
    forward = jax.jit(lambda x, w: convolution.convolve(x, w, strides, padding, **options))(x, w)
    for a, b in zip((*found, forward), (*expected, expected[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


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


EACH = {"channels": 6, "feature_group_count": 6}


@pytest.mark.parametrize(
    "case",
    [
        {"kernel": (2, 3), "strides": (2, 1), "padding": [(2, 0), (0, 3)]},
        {"kernel": (4, 4), "strides": (4, 4), "padding": "VALID"},
        {"kernel": (3, 3), "strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 2)},
        {"kernel": (3, 3), "strides": (1, 1), "padding": "SAME", "feature_group_count": 3},
        {"kernel": (3, 3), "strides": (1, 1), "padding": [(1, 1)] * 2, "lhs_dilation": (2, 2)},
        {"kernel": (3, 3), "strides": (1, 1), "padding": "SAME", **EACH},
        {"kernel": (5, 5), "strides": (2, 2), "padding": "SAME", **EACH},
        {"kernel": (3, 2), "strides": (2, 1), "padding": [(0, 1), (2, 0)], **EACH},
        {"kernel": (3, 3), "strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 2), **EACH},
    ],
    ids=[
        "uneven",
        "patches",
        "dilated kernel",
        "groups",
        "dilated input",
        "each channel",
        "each channel, half size",
        "each channel, uneven",
        "each channel, dilated",
    ],
)
def test_convolve_in_rarer_forms(case):
    assert_same_convolution(**case)


def primitives(function, *args):
    """Names of what a function does to shapes."""
    return [equation.primitive.name for equation in jax.make_jaxpr(function)(*args).eqns]


@pytest.mark.parametrize("target", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(0, 0), (0, 0)]])
@pytest.mark.parametrize("sizes", [(2, 5, 7, 3, 6), (1, 1, 1, 8, 1), (3, 16, 4, 1, 5)])
def test_kernels_of_one_pixel_are_products_on_every_platform(target, padding, sizes):
    """XLA's convolution to rounding, in value and in both gradients, without a convolution."""
    b, height, width, channels, features = sizes
    x, w = normal(0, b, height, width, channels), normal(1, 1, 1, channels, features)
    weights = normal(2, b, height, width, features)
    one = lambda x, w: convolution.convolve(x, w, (1, 1), padding, **OPTIONS)
    xla = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    both = lambda f: jax.value_and_grad(lambda x, w: jnp.sum(weights * f(x, w)), (0, 1))
    with platform.compile_for(target):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            both(one)(x, w),
            both(xla)(x, w),
        )
        used = primitives(both(one), x, w)
    assert "dot_general" in used
    assert "conv_general_dilated" not in used
    assert one(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("kernel", "strides", "padding"), [(1, 2, "VALID"), (1, 1, [(1, 0), (0, 0)]), (3, 1, "SAME")]
)
def test_other_convolutions_stay_the_compilers_on_gpus(kernel, strides, padding):
    x, w = normal(0, 1, 6, 6, 3), normal(1, kernel, kernel, 3, 4)
    convolve = lambda x, w: convolution.convolve(x, w, (strides,) * 2, padding, **OPTIONS)
    with platform.compile_for("gpu"):
        assert primitives(convolve, x, w) == ["conv_general_dilated"]


SAME = ((1, 1), (1, 1))
OPTIONS = {
    "lhs_dilation": (1, 1),
    "rhs_dilation": (1, 1),
    "feature_group_count": 1,
    "dimension_numbers": NHWC,
}


@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
@settings(max_examples=8, deadline=None)
def test_winograd_of_any_size(batch, height, width, channels):
    x, w = normal(0, batch, height, width, channels[0]), normal(1, 3, 3, *channels)
    expected = jax.lax.conv_general_dilated(x, w, (1, 1), SAME, dimension_numbers=NHWC)
    np.testing.assert_allclose(convolution.winograd(x, w), expected, rtol=1e-4, atol=1e-5)


def test_large_maps_are_drawn_by_winograd_and_trained_by_products(monkeypatch):
    asked, winograd = [], convolution.winograd
    monkeypatch.setattr(convolution, "winograd", lambda *a: asked.append(a) or winograd(*a))
    x, w = normal(0, 1, 16, 16, 64), normal(1, 3, 3, 64, 32)
    convolve = lambda x, w: convolution.convolve(x, w, (1, 1), SAME, **OPTIONS)
    expected = jax.lax.conv_general_dilated(x, w, (1, 1), SAME, dimension_numbers=NHWC)
    np.testing.assert_allclose(convolve(x, w), expected, atol=1e-4)
    assert len(asked) == 1
    np.testing.assert_allclose(convolve(x[:, :8, :8], w)[:, :7, :7], expected[:, :7, :7], atol=1e-4)
    jax.grad(lambda w: jnp.sum(convolve(x, w) ** 2))(w)
    convolve(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    assert len(asked) == 1
