"""The affine of latents: from sums, far from the origin too."""

import numpy as np
import pytest

from ssldiff_jax.stages import latents


@pytest.mark.parametrize("mean", [0.0, 3.0, 2000.0])
def test_mean_and_deviation_of_sums(mean):
    z = mean + np.random.default_rng(0).normal(size=(5, 8, 8, 2))
    parts = [latents._sums(part, 2) for part in (z[:2], z[2:])]
    found = latents._mean_and_std(sum(parts))
    np.testing.assert_allclose(found[0], z.mean(axis=(0, 1, 2)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], z.std(axis=(0, 1, 2)), rtol=1e-7)


def test_the_variance_of_a_distribution_counts():
    mean = np.random.default_rng(0).normal(size=(5, 8, 8, 1))
    moments = np.concatenate([mean, np.full_like(mean, np.log(0.25))], axis=-1)
    _, std = latents._mean_and_std(latents._sums(moments, 1))
    assert std == pytest.approx(np.sqrt(mean.var() + 0.25))


@pytest.mark.parametrize("value", [0.0, 7.0, np.inf])
def test_latents_without_a_deviation_are_refused(value):
    z = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    z[..., 1] = value
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=r"must be finite and vary .* in channels \[1\]"),
    ):
        latents._mean_and_std(latents._sums(z, 3))
