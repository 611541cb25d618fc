"""First parameters are flax's, without the programs that flax would have compiled."""

import compilations
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ssldiff_jax.train import initial

FAN_IN = 48 * 40
INITIALISERS = {
    # name: (initialiser, distribution of its numbers)
    "lecun": (nn.initializers.lecun_normal(), "truncated", FAN_IN**-0.5),
    "he": (nn.initializers.he_normal(), "truncated", (2 / FAN_IN) ** 0.5),
    "normal": (nn.initializers.normal(0.02), "normal", 0.02),
    "truncated": (nn.initializers.truncated_normal(0.3), "cut", 0.3),
    "uniform": (nn.initializers.uniform(0.7), "uniform", 0.7),
    "xavier": (nn.initializers.xavier_uniform(), "symmetric", (6 / (FAN_IN + 9)) ** 0.5),
}


def distribution(kind, scale):
    """By SciPy. Variance scaling widens a normal cut at two deviations to the deviation asked."""
    match kind:
        case "truncated":
            return stats.truncnorm(-2, 2, scale=scale / stats.truncnorm(-2, 2).std())
        case "cut":
            return stats.truncnorm(-2, 2, scale=scale)
        case "normal":
            return stats.norm(scale=scale)
        case "uniform":
            return stats.uniform(0, scale)
        case "symmetric":
            return stats.uniform(-scale, 2 * scale)


@pytest.mark.parametrize("name", INITIALISERS)
def test_numbers_are_flaxs_and_distributed_as_its_initialiser_says(name):
    initialiser, kind, scale = INITIALISERS[name]
    # As layers see them: all dimensions but the last are inputs.
    make = lambda key: initialiser(key, (FAN_IN, 9))
    found = initial.evaluate(make, jax.random.key(3))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, jax.jit(make)(jax.random.key(3)), rtol=2e-5, atol=1e-6)
    wanted = distribution(kind, scale)
    error = wanted.std() / found.size**0.5
    assert abs(found.mean() - wanted.mean()) < 4 * error
    assert found.std() == pytest.approx(wanted.std(), rel=4 / (2 * found.size) ** 0.5)
    assert stats.kstest(found.ravel(), wanted.cdf).pvalue > 1e-3


class Network(nn.Module):
    """Layers of several sizes and all kinds of first values, and a branch that only runs."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(7, (3, 3))(x)
        x = nn.relu(nn.GroupNorm(1)(x)).reshape(len(x), -1)
        table = self.param("table", nn.initializers.normal(0.02), (5, x.shape[-1]))
        scale = self.param("scale", nn.initializers.constant(0.3), (x.shape[-1],))
        for width in (11, 200, 3):
            x = nn.Dense(width, kernel_init=nn.initializers.xavier_uniform())(x)
        return jnp.linalg.svd(x)[1] * scale.sum() * table.sum()


def test_a_network_is_initialised_as_by_flax():
    x, key = np.zeros((2, 6, 5, 3), np.float32), jax.random.key(5)
    found = initial.evaluate(Network().init, key, x)
    wanted = jax.jit(Network().init)(key, x)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_what_is_given_on_needs_no_program():
    """Constants, arguments and pieces of them."""

    def function(key, x):
        first = jnp.zeros(3) + x[1:, 0]
        return {"first": first, "same": x, "none": 2.5, "key": jax.random.split(key)[1]}

    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = initial.evaluate(function, jax.random.key(0), x)
    np.testing.assert_array_equal(found["first"], [2, 4, 6])
    np.testing.assert_array_equal(found["same"], x)
    assert found["none"] == 2.5
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(
        jax.random.split(jax.random.key(0))[1])).all()  # fmt: skip


def test_what_numpy_has_no_word_for_is_jaxs():
    make = lambda key: nn.initializers.orthogonal()(key, (6, 4))
    found = initial.evaluate(make, jax.random.key(1))
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(found, make(jax.random.key(1)), atol=1e-5)


class Wide(nn.Module):
    """Twenty layers of twenty sizes."""

    @nn.compact
    def __call__(self, x):
        for width in range(30, 50):
            x = nn.tanh(nn.Dense(width)(x))
        return x


def test_programs_do_not_grow_with_arrays():
    x = np.zeros((1, 64), np.float32)
    initial.evaluate(nn.Dense(70).init, jax.random.key(0), x)  # the generator itself
    with compilations.counted() as counts:
        params = initial.evaluate(Wide().init, jax.random.key(0), x)
    assert len(jax.tree.leaves(params)) == 40
    assert counts.programs == 0
