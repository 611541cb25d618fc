import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.diffusion import guidance, process

SCHEDULE = small_configs.section("denoiser.schedule")


class Network:
    """A denoiser that is not linear in the embedding and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, x_t, t, embedding):
        self.asked.append((x_t, t, embedding))
        return 0.3 * x_t + jnp.cos(embedding.sum(axis=-1))[:, None, None, None] + 1e-3 * t[0]


X_T = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype(np.float32)
T, E = np.array([30, 700]), np.array([[0.2, 1.0], [3.0, -0.5]], np.float32)


process_of = functools.partial(process.Process, SCHEDULE)


def test_no_guidance_asks_once():
    network = Network()
    guided = guidance.GuidedX0(network, process_of("x0"), guidance.UNGUIDED)
    found = guided(X_T, T, E)
    assert [x.shape for x, _, _ in network.asked] == [X_T.shape]
    np.testing.assert_array_equal(found, Network()(X_T, T, E))
    np.testing.assert_array_equal(guided.calls_per_example(T), 1)


@pytest.mark.parametrize("scale", [0.0, 3.0])
@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_guidance_extrapolates_x0_from_the_null_embedding(name, scale):
    x0 = lambda e: process_of(name).to_x0(Network()(X_T, T, e), X_T, T)
    cond, uncond = x0(E), x0(np.zeros_like(E))
    network = Network()
    guided = guidance.GuidedX0(
        network, process_of(name), dataclasses.replace(guidance.UNGUIDED, scale=scale)
    )
    expected = uncond + scale * (cond - uncond)
    np.testing.assert_allclose(guided(X_T, T, E), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(guided.calls_per_example(T), 2)
    assert sum(len(x) for x, _, _ in network.asked) == 2 * len(X_T)


@pytest.mark.parametrize(("t", "is_guided"), [(200, False), (300, True), (799, True), (800, False)])
def test_guidance_stays_in_its_interval(t, is_guided):
    """Outside, what comes out is what the network finds with the condition, at one call."""
    make = lambda scale, interval: guidance.GuidedX0(
        Network(),
        process_of("v"),
        dataclasses.replace(guidance.UNGUIDED, scale=scale, interval=interval),
    )
    guided, at = make(3.0, (0.3, 0.8)), np.array([t, t])
    expected = make(3.0 if is_guided else 1.0, (0.0, 1.0))(X_T, at, E)
    np.testing.assert_allclose(guided(X_T, at, E), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(guided.calls_per_example(at), 1 + is_guided)


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_rescaling_brings_back_the_spread(rescale):
    contrast = lambda x_t, t, embedding: jnp.asarray(x_t * (0.3 + embedding[:, :1, None, None]))
    make = lambda scale, rescale: guidance.GuidedX0(
        contrast,
        process_of("x0"),
        dataclasses.replace(guidance.UNGUIDED, scale=scale, rescale=rescale),
    )(X_T, T, E)
    spread = lambda x: np.std(x, axis=(1, 2, 3))
    plain, guided, found = make(1.0, 0.0), make(4.0, 0.0), make(4.0, rescale)
    wanted = (1 - rescale) * spread(guided) + rescale * spread(plain)
    np.testing.assert_allclose(spread(found), wanted, rtol=1e-4)
    assert np.all(np.abs(spread(guided) - spread(plain)) > 1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": (0.5, 0.4)}, r"got \(0.5, 0.4\)"),
        ({"interval": (0.0, 1.1)}, r"got \(0.0, 1.1\)"),
        ({"rescale": 1.5}, "rescale=1.5"),
    ],
)
def test_guidance_that_means_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(guidance.UNGUIDED, scale=2.0, **settings)
