"""How many directions embeddings take: white noise and what has collapsed are told."""

import numpy as np
import pytest

from ssldiff_jax.encoders import variety


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dim", [16, 384])
def test_white_noise_is_as_white_as_noise(dim):
    """256 vectors of 384 numbers seem to have a rank of 183: so many are not enough."""
    enough = variety.Variety.of(normal(1, variety.num_ranked(dim), dim))
    assert enough.effective_rank > 0.94 * dim
    assert enough.effective_rank == pytest.approx(enough.effective_rank_of_noise, rel=0.01)
    assert enough.collapse is None
    few = variety.Variety.of(normal(1, 256, 384))
    assert few.effective_rank == pytest.approx(183, abs=1)
    assert few.effective_rank_of_noise == pytest.approx(few.effective_rank, rel=0.01)


@pytest.mark.parametrize("count", [30, 400])
def test_a_rank_is_that_of_the_singular_values(count):
    x = normal(0, count, 40) * np.linspace(0.1, 2, 40, dtype=np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    p = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False) ** 2
    p = p[p > 1e-9 * p.sum()] / p.sum()
    assert variety.effective_rank(x) == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-4)


@pytest.mark.parametrize(
    ("embedding", "origin"),
    [
        (np.ones((300, 24), np.float32), 0.0),
        (np.ones((300, 24), np.float32) + 1e-7 * normal(0, 300, 24), 0.0),
        (np.ones((300, 24), np.float32) + 1e-3 * normal(0, 300, 24), 0.0),
        # Measured from their mean, equal vectors are rounding, which is white.
        (1e-7 * normal(0, 300, 24), np.ones(24, np.float32)),
        (normal(0, 300, 1) * normal(1, 1, 24), 0.0),
        (np.zeros((300, 24), np.float32), 0.0),
    ],
    ids=["equal", "but for rounding", "nearly equal", "from their mean", "on a line", "zero"],
)
def test_a_collapsed_encoder_is_told_in_one_line(embedding, origin):
    found = variety.Variety.of(embedding, origin)
    assert found.collapse is not None
    assert "\n" not in found.collapse
    assert "300 have an effective rank of" in found.collapse
    assert f"of 24 (white noise: {found.effective_rank_of_noise:.3g})" in found.collapse


def test_embeddings_in_a_narrow_cone_are_no_collapse():
    """Cosines of 0.98 are usual before a mean is taken off."""
    cone = np.ones(24, np.float32) + 0.14 * normal(0, 300, 24)
    unit = cone / np.linalg.norm(cone, axis=1, keepdims=True)
    assert np.mean(unit @ unit.T) > 0.97
    assert variety.Variety.of(cone).collapse is None
    assert variety.Variety.of(cone - 1, 1.0).collapse is None


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_a_few_embeddings_a_low_rank_is_no_collapse(count):
    """Two vectors lie on a line whatever they are."""
    noise = np.random.default_rng(1).normal(size=(count, 24))
    assert variety.Variety.of(noise).effective_rank < 3
    assert variety.Variety.of(noise).collapse is None
    assert "collapsed" in variety.Variety.of(np.ones((count, 24))).collapse
    assert variety.Variety.of(noise[:1]).collapse is None


def test_embeddings_that_are_not_finite_are_told_in_one_line():
    broken = np.random.default_rng(1).normal(size=(30, 24))
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="finite embeddings, got NaN or infinity in 1 of 30"):
        variety.Variety.of(broken)
