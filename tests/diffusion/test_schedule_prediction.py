import os
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ssldiff_jax.diffusion import prediction, schedule

GOLDEN = pathlib.Path(
    os.environ.get("SSLDIFF_GOLDEN", pathlib.Path(__file__).parents[1] / "golden")
)
LINEAR, COSINE = schedule.Schedule("scaled_linear"), schedule.Schedule("cosine")


def test_scaled_linear_is_the_published_schedule():
    golden = load_file(GOLDEN / "lrdm_schedule.safetensors")
    bar = golden["output.alphas_cumprod"]
    np.testing.assert_allclose(LINEAR.alpha_bar, bar, rtol=1e-12)
    root = golden["output.buffer_sqrt_alphas_cumprod_fp32"]
    alpha, sigma = LINEAR.at(np.arange(1000), ndim=1)
    np.testing.assert_allclose(alpha, root, rtol=1e-6)
    root = golden["output.buffer_sqrt_one_minus_alphas_cumprod_fp32"]
    np.testing.assert_allclose(sigma, root, rtol=1e-6)


@pytest.mark.parametrize("noise", [LINEAR, COSINE, schedule.Schedule("cosine", 50)])
def test_variance_is_preserved_and_noise_grows(noise):
    np.testing.assert_allclose(noise.alphas**2 + noise.sigmas**2, 1, rtol=1e-12)
    assert np.all(np.diff(noise.alphas) < 0)
    assert np.all(np.diff(noise.sigmas) >= 0)
    assert noise.alphas[0] > 0.99 or noise.num_timesteps < 1000
    assert noise.alphas.shape == (noise.num_timesteps,)


def test_cosine_follows_its_formula_and_ends_near_nothing():
    place = (np.arange(1, 1001) / 1000 + 0.008) / 1.008
    formula = np.cos(place * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(COSINE.alpha_bar[:990], formula[:990], rtol=1e-9)
    assert 0 < COSINE.alphas[-1] < 1e-3


def test_at_broadcasts_over_images():
    alpha, sigma = LINEAR.at(np.array([0, 999]))
    assert alpha.shape == sigma.shape == (2, 1, 1, 1)
    np.testing.assert_allclose(alpha.ravel(), LINEAR.alphas[[0, 999]], rtol=1e-6)
    np.testing.assert_allclose(sigma.ravel(), LINEAR.sigmas[[0, 999]], rtol=1e-6)


target, to_x0 = (jax.jit(f, static_argnums=0) for f in (prediction.target, prediction.to_x0))


def noised(noise, t, seed):
    """x0, eps, alpha, sigma, x_t, and the rounding errors to expect of an x0 and an eps."""
    x0, eps = np.random.default_rng(seed).normal(size=(2, 3, 4)).astype(np.float32)
    alpha, sigma = np.float32(noise.alphas[[t]]), np.float32(noise.sigmas[[t]])
    x_t = alpha * x0 + sigma * eps
    return x0, eps, alpha, sigma, x_t, 2e-6 / alpha.item(), 2e-6 / sigma.item()


@given(
    name=st.sampled_from(["eps", "x0", "v"]),
    noise=st.sampled_from([LINEAR, COSINE]),
    t=st.integers(0, 990),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_targets_imply_what_they_were_made_of(name, noise, t, seed):
    x0, eps, alpha, sigma, x_t, x0_atol, _ = noised(noise, t, seed)
    output = target(name, x0, eps, alpha, sigma)
    np.testing.assert_allclose(to_x0(name, output, x_t, alpha, sigma), x0, atol=x0_atol)


@given(
    here=st.sampled_from(["eps", "x0", "v"]),
    there=st.sampled_from(["eps", "x0", "v"]),
    t=st.integers(0, 999),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_output_converts_to_any_other_and_back(here, there, t, seed):
    """Also where the output is no target: of x0_hat and the noise that is left of x_t."""
    _, output, alpha, sigma, x_t, x0_atol, eps_atol = noised(LINEAR, t, seed)
    x0 = to_x0(here, output, x_t, alpha, sigma)
    eps = (x_t - alpha * x0) / sigma
    other = target(there, x0, eps, alpha, sigma)
    size = 1 + np.abs(x0).max() + np.abs(eps).max()
    np.testing.assert_allclose(to_x0(there, other, x_t, alpha, sigma), x0, atol=x0_atol * size)
    back = target(here, x0, eps, alpha, sigma)
    np.testing.assert_allclose(back, output, atol=1e-5 + eps_atol * size)


def test_v_is_a_rotation():
    x0, eps, alpha, sigma, x_t, *_ = noised(COSINE, 400, 0)
    v = target("v", x0, eps, alpha, sigma)
    np.testing.assert_allclose(x_t**2 + v**2, x0**2 + eps**2, rtol=1e-4)
