import numpy as np
import pytest
import small_configs
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.diffusion import process

LINEAR, COSINE, STRAIGHT = (
    small_configs.section("denoiser.schedule", name=name)
    for name in ("scaled_linear", "cosine", "linear")
)


PREDICTIONS = ["eps", "x0", "v"]
OF_STRAIGHT = ["eps", "x0", "velocity"]


def noised(noise, t, seed):
    """x0, eps and x_t of two examples at t, and the rounding errors to expect of an x0 and an
    eps."""
    x0, eps = np.random.default_rng(seed).normal(size=(2, 2, 3, 4)).astype(np.float32)
    x_t = process.Process(noise, "eps").add_noise(x0, eps, np.array([t, t]))
    return x0, eps, x_t, 2e-6 / noise.alphas[t], 2e-6 / noise.sigmas[t]


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4), (2, 3, 4, 5)])
def test_noise_is_added_to_every_example_at_its_own_timestep(shape):
    x0, eps = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    t = np.array([30, 700])
    x_t = process.Process(COSINE, "v").add_noise(x0, eps, t)
    for i in range(2):
        expected = COSINE.alphas[t[i]] * x0[i] + COSINE.sigmas[t[i]] * eps[i]
        np.testing.assert_allclose(x_t[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_targets_are_their_closed_forms(name):
    x0, eps, x_t, *_ = noised(LINEAR, 300, 0)
    t, alpha, sigma = np.array([300, 300]), LINEAR.alphas[300], LINEAR.sigmas[300]
    of = process.Process(LINEAR, name)
    target = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[name]
    np.testing.assert_allclose(of.target(x0, eps, t), target, atol=1e-6)
    given = {"eps": (x_t - sigma * x0) / alpha, "x0": x0, "v": alpha * x_t - sigma * x0}[name]
    np.testing.assert_allclose(of.to_x0(x0, x_t, t), given, rtol=1e-5, atol=1e-5)
    given = {"eps": eps, "x0": (x_t - alpha * eps) / sigma, "v": sigma * x_t + alpha * eps}[name]
    np.testing.assert_allclose(of.to_eps(eps, x_t, t), given, rtol=1e-5, atol=1e-5)


def test_velocity_is_how_the_straight_path_moves_with_sigma():
    """By a difference of two points of the path; it is the same everywhere on it."""
    x0, eps = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    of = process.Process(STRAIGHT, "velocity")
    low, high = np.array([100, 400]), np.array([300, 800])
    moved = np.asarray(of.add_noise(x0, eps, high)) - of.add_noise(x0, eps, low)
    sigma = (STRAIGHT.sigmas[high] - STRAIGHT.sigmas[low])[:, None, None]
    np.testing.assert_allclose(moved / sigma, of.target(x0, eps, low), atol=1e-5)


@pytest.mark.parametrize(("name", "noise"), [("v", STRAIGHT), ("velocity", COSINE)])
def test_a_prediction_of_another_path_is_refused(name, noise):
    with pytest.raises(ValueError, match=f"prediction.*schedule.name.*got .*{name}|{noise.name}"):
        process.Process(noise, name)


@given(
    case=st.sampled_from(
        [(name, noise) for name in PREDICTIONS for noise in (LINEAR, COSINE)]
        + [(name, STRAIGHT) for name in OF_STRAIGHT]
    ),
    t=st.integers(0, 990),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_targets_imply_what_they_were_made_of(case, t, seed):
    name, noise = case
    x0, eps, x_t, x0_atol, eps_atol = noised(noise, t, seed)
    of, t = process.Process(noise, name), np.array([t, t])
    target = of.target(x0, eps, t)
    np.testing.assert_allclose(of.to_x0(target, x_t, t), x0, atol=x0_atol)
    np.testing.assert_allclose(of.to_eps(target, x_t, t), eps, atol=eps_atol)


@given(
    here=st.sampled_from(PREDICTIONS),
    there=st.sampled_from(PREDICTIONS),
    t=st.integers(0, 999),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_prediction_converts_to_any_other_and_back(here, there, t, seed):
    """Also where it is no target: x0_hat and eps_hat always explain x_t."""
    _, prediction_hat, x_t, x0_atol, eps_atol = noised(LINEAR, t, seed)
    here, there = (process.Process(LINEAR, name) for name in (here, there))
    t = np.array([t, t])
    x0, eps = here.to_x0(prediction_hat, x_t, t), here.to_eps(prediction_hat, x_t, t)
    np.testing.assert_allclose(here.add_noise(x0, eps, t), x_t, atol=1e-5)
    other = there.target(x0, eps, t)
    size = 1 + np.abs(x0).max() + np.abs(eps).max()
    np.testing.assert_allclose(there.to_x0(other, x_t, t), x0, atol=x0_atol * size)
    np.testing.assert_allclose(there.to_eps(other, x_t, t), eps, atol=eps_atol * size)
    np.testing.assert_allclose(here.target(x0, eps, t), prediction_hat, atol=1e-5)


def test_v_is_a_rotation():
    x0, eps, x_t, *_ = noised(COSINE, 400, 0)
    v = process.Process(COSINE, "v").target(x0, eps, np.array([400, 400]))
    np.testing.assert_allclose(x_t**2 + v**2, x0**2 + eps**2, rtol=1e-4)


def test_snr_is_signal_over_noise():
    t = np.array([0, 500, 999])
    found = process.Process(LINEAR, "eps").snr(t)
    np.testing.assert_allclose(found, LINEAR.alpha_bar[t] / (1 - LINEAR.alpha_bar[t]), rtol=1e-4)
