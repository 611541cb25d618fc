import logging

import numpy as np
import pytest
from scipy import linalg

from ssldiff_jax.core.moments import Moments
from ssldiff_jax.evaluation.metrics import frechet, frechet_interval


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_frechet_distance_of_known_gaussians():
    """Moments that are set, not sampled: the published formula, by the root of the product."""
    a, b = Moments(5), Moments(5)
    for side, seed in ((a, 0), (b, 1)):
        spread = normal(seed, 5, 5)
        side.count, side.mean, side.scatter = 101, normal(seed + 2, 5), 100 * spread @ spread.T
    root = linalg.sqrtm(a.covariance @ b.covariance).real
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet.frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet.frechet(b, a) == pytest.approx(expected, rel=1e-8)
    # Along axes: (μa − μb)² + (σa − σb)².
    a.mean, b.mean = np.zeros(5), np.arange(5.0)
    a.scatter, b.scatter = 100 * np.eye(5), 100 * np.diag([1.0, 4, 9, 16, 25])
    assert frechet.frechet(a, b) == pytest.approx(30 + 30, rel=1e-9)


def test_two_samples_of_one_gaussian_are_as_far_apart_as_stated():
    dim, count = 20, 2000
    found = [
        frechet.frechet_distance(normal(s, count, dim), normal(s + 99, count, dim))
        for s in range(20)
    ]
    assert np.mean(found) == pytest.approx(dim**2 / (2 * count) + 2 * dim / count, rel=0.1)


@pytest.mark.parametrize("shift", [0.01, 1.0])
def test_neither_hosts_nor_batches_change_the_distance(shift):
    """Far from the origin, where sums of squares would lose it."""
    a, b = (normal(s, 3000, 16).astype(np.float32) + 300 for s in (0, 1))
    b += shift
    expected = frechet.frechet_distance(a, b)

    def gathered(features, cuts, batch):
        hosts = []
        for part in np.split(features, cuts):
            host = Moments(16)
            for start in range(0, len(part), batch):
                host.add(part[start : start + batch])
            hosts.append(host.pack())
        return Moments.merged(Moments.unpack(host) for host in hosts[::-1])

    for cuts, batch in (([1500], 128), ([1, 700, 2900], 7), ([], 5000)):
        found = frechet.frechet(gathered(a, cuts, batch), gathered(b, cuts[:1], batch))
        assert found == pytest.approx(expected, rel=1e-6)
    of = frechet_interval.blocks_of
    blocks = frechet_interval.frechet_estimate(of(a), of(b, 7))
    assert blocks.uncorrected == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (normal(0, 8, 8), "8 features of dimension 8: the covariance is singular"),
        (np.full((40, 8), 0.1, np.float32), "all 40 features are the same"),
    ],
)
def test_what_a_distance_does_not_tell_is_said_in_one_line(features, told, caplog):
    frechet._say_singular.cache_clear()
    with caplog.at_level(logging.WARNING, logger="ssldiff_jax"):
        found = frechet.frechet_distance(features, normal(1, 40, 8))
    if "singular" in told:
        # A dozen distances of one evaluation say it once.
        frechet.frechet_distance(normal(2, 8, 8), features)
    assert np.isfinite(found)
    (record,) = caplog.records
    assert told in record.getMessage()
    assert "\n" not in record.getMessage()


def test_features_that_cannot_be_compared_are_refused():
    x = normal(0, 20, 4)
    with pytest.raises(ValueError, match="expected features of one dimension, got 4 and 3"):
        frechet.frechet(Moments.of(x), Moments.of(x[:, :3]))
    x[3, 1], x[7] = np.nan, np.inf
    with pytest.raises(ValueError, match="finite features, got NaN or infinity in 2 of 20"):
        frechet.frechet_distance(x, x)
    with pytest.raises(ValueError, match="expected features to make blocks of, got none"):
        frechet_interval.blocks_of(x[:0])
    with pytest.raises(ValueError, match="at least 2 vectors for a covariance, got 0"):
        frechet.frechet(Moments(4), Moments(4))
