"""Unit vectors and distances against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.core import vectors

X = np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_unit_is_of_length_one_in_the_same_direction(axis, kind):
    unit = vectors.unit(kind(X.astype(np.float32)), axis)
    assert type(unit) is type(kind(X))
    length = np.linalg.norm(X, axis=axis, keepdims=True)
    np.testing.assert_allclose(unit, X / length, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_unit_does_not_depend_on_the_length(size):
    np.testing.assert_allclose(vectors.unit(size * X), vectors.unit(X), rtol=1e-12)


def test_a_zero_vector_stays_zero_and_has_a_finite_gradient():
    assert not vectors.unit(np.zeros((2, 3))).any()
    gradient = jax.grad(lambda x: jnp.sum(vectors.unit(x)))(jnp.zeros(3))
    assert np.isfinite(gradient).all()


def test_squared_distances_are_those_of_all_pairs():
    other = X[::-1][:4] + 0.5
    expected = np.sum((X[:, None] - other) ** 2, axis=-1)
    np.testing.assert_allclose(vectors.squared_distances(X, other), expected, atol=1e-12)


def test_a_vector_is_no_less_than_nothing_from_itself():
    far = (X + 1e4).astype(np.float32)
    assert vectors.squared_distances(far, far).min() >= 0
