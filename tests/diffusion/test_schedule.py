import os
import pathlib

import numpy as np
import pytest
import small_configs
from safetensors.numpy import load_file

GOLDEN = pathlib.Path(
    os.environ.get("SSLDIFF_GOLDEN", pathlib.Path(__file__).parents[1] / "golden")
)
LINEAR, COSINE, STRAIGHT = (
    small_configs.section("denoiser.schedule", name=name)
    for name in ("scaled_linear", "cosine", "linear")
)


def test_scaled_linear_is_the_published_schedule():
    golden = load_file(GOLDEN / "lrdm_schedule.safetensors")
    bar = golden["output.alphas_cumprod"]
    np.testing.assert_allclose(LINEAR.alpha_bar, bar, rtol=1e-12)
    root = golden["output.buffer_sqrt_alphas_cumprod_fp32"]
    alpha, sigma = LINEAR.at(np.arange(1000), ndim=1)
    np.testing.assert_allclose(alpha, root, rtol=1e-6)
    root = golden["output.buffer_sqrt_one_minus_alphas_cumprod_fp32"]
    np.testing.assert_allclose(sigma, root, rtol=1e-6)


def test_linear_betas_grow_by_equal_steps():
    noise = small_configs.section(
        "denoiser.schedule", name="linear_betas", beta_start=1e-4, beta_end=0.02
    )
    assert noise.preserves_variance
    np.testing.assert_allclose(noise.betas[[0, -1]], [1e-4, 0.02], rtol=1e-9)
    np.testing.assert_allclose(np.diff(noise.betas), (0.02 - 1e-4) / 999, rtol=1e-8)
    # Ho et al. 2020, section 4: what is left of x0 at the end.
    assert noise.alpha_bar[-1] == pytest.approx(4.04e-5, rel=2e-3)


@pytest.mark.parametrize(
    "noise",
    [LINEAR, COSINE, small_configs.section("denoiser.schedule", name="cosine", num_timesteps=50)],
)
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


def test_the_straight_path_is_straight_and_reaches_neither_end():
    np.testing.assert_allclose(STRAIGHT.alphas + STRAIGHT.sigmas, 1, rtol=1e-15)
    np.testing.assert_allclose(np.diff(STRAIGHT.sigmas), 1e-3, rtol=1e-9)
    assert STRAIGHT.sigmas[0] == pytest.approx(1 - STRAIGHT.sigmas[-1]) == 0.0005
    with pytest.raises(ValueError, match=r"betas must come from .*, got schedule.name=linear"):
        _ = STRAIGHT.betas


def test_at_broadcasts_over_images():
    alpha, sigma = LINEAR.at(np.array([0, 999]))
    assert alpha.shape == sigma.shape == (2, 1, 1, 1)
    np.testing.assert_allclose(alpha.ravel(), LINEAR.alphas[[0, 999]], rtol=1e-6)
    np.testing.assert_allclose(sigma.ravel(), LINEAR.sigmas[[0, 999]], rtol=1e-6)


@pytest.mark.parametrize(
    "values", [{"num_timesteps": 0}, {"beta_start": 0.0}, {"beta_start": 0.02}, {"beta_end": 1.0}]
)
def test_a_schedule_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}|betas"):
        small_configs.section("denoiser.schedule", **values)
