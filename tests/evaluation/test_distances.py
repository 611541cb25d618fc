import logging

import numpy as np
import pytest
from scipy import linalg

from ssldiff_jax.core.moments import Moments
from ssldiff_jax.evaluation import distances, estimate


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
    assert distances.frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert distances.frechet(b, a) == pytest.approx(expected, rel=1e-8)
    # Along axes: (μa − μb)² + (σa − σb)².
    a.mean, b.mean = np.zeros(5), np.arange(5.0)
    a.scatter, b.scatter = 100 * np.eye(5), 100 * np.diag([1.0, 4, 9, 16, 25])
    assert distances.frechet(a, b) == pytest.approx(30 + 30, rel=1e-9)


def test_two_samples_of_one_gaussian_are_as_far_apart_as_stated():
    dim, count = 20, 2000
    found = [
        distances.frechet_distance(normal(s, count, dim), normal(s + 99, count, dim))
        for s in range(20)
    ]
    assert np.mean(found) == pytest.approx(dim**2 / (2 * count) + 2 * dim / count, rel=0.1)


def test_the_estimate_has_the_distance_and_its_counts(golden):
    recorded = golden("metrics_fid_kid_prc")
    a, b = recorded.inputs["features1"], recorded.inputs["features2"]
    found = distances.frechet_estimate(distances.blocks_of(a), distances.blocks_of(b, 10))
    expected = recorded.outputs["frechet_pytorch_fid_float64_features"]
    assert found.value == pytest.approx(float(expected[0]), rel=1e-6)
    assert found.counts == (600, 500)
    assert found.interval == "95%, jackknife of 20 and 10 blocks"
    assert 0 < found.bias < found.value
    assert found.low < found.value - found.bias < found.high


@pytest.mark.parametrize(("shift", "least"), [(0.5, 0.9), (0.0, 0.93)])
def test_the_interval_covers_the_populations_distance(shift, least):
    """150 draws; the standard error of a rate of 0.95 is 0.018."""
    dim, draws, covered, excess = 6, 150, 0, []
    spread = np.linspace(1, 2 if shift else 1, dim)
    truth = dim * shift**2 + np.sum((spread - 1) ** 2)
    for seed in range(draws):
        a = normal([seed, 0], 300, dim)
        b = normal([seed, 1], 400, dim) * spread + shift
        found = distances.frechet_estimate(distances.blocks_of(a), distances.blocks_of(b))
        covered += found.low <= truth <= found.high
        excess.append([found.value - truth, found.value - found.bias - truth])
    assert least <= covered / draws <= 1
    plain, corrected = np.mean(excess, axis=0)
    assert abs(corrected) < 0.4 * plain


def test_an_interval_of_slides_is_wider_where_features_of_a_slide_are_alike():
    """Blocks that are slides, of unequal sizes, against a reference that is known exactly."""
    sizes = [20, 40, 60, 80] * 5
    slides = [normal([i, 0], 4) + 0.3 * normal([i, 1], n, 4) for i, n in enumerate(sizes)]
    reference = [Moments.of(normal(7, 5000, 4))]
    by_slide = distances.frechet_estimate([Moments.of(s) for s in slides], reference)
    mixed = np.random.default_rng(0).permutation(np.concatenate(slides))
    by_chance = distances.frechet_estimate(distances.blocks_of(mixed), reference)
    assert by_slide.value == pytest.approx(by_chance.value, rel=1e-9)
    assert by_slide.bias > 3 * by_chance.bias
    assert by_slide.high > by_chance.high
    assert by_slide.interval == "95%, jackknife of 20 blocks"


def test_the_interval_of_pairs_covers_and_is_narrower():
    """What is drawn from a feature shares its chance."""
    wanted, covered, widths = 4 * 0.25 + 4 * (1.09**0.5 - 1) ** 2, 0, []
    for seed in range(60):
        x = normal(seed, 200, 4)
        drawn = x + 0.5 + 0.3 * normal(1000 + seed, 200, 4)
        sides = distances.blocks_of(drawn), distances.blocks_of(x)
        paired, apart = (distances.frechet_estimate(*sides, paired=p) for p in (True, False))
        assert paired.value == pytest.approx(apart.value, rel=1e-9)
        covered += paired.low <= wanted <= paired.high
        widths.append((paired.high - paired.low) / (apart.high - apart.low))
    assert covered / 60 >= 0.88
    assert np.median(widths) < 0.4
    with pytest.raises(ValueError, match="expected blocks in pairs, got 20 and 19"):
        distances.frechet_estimate(sides[0], sides[1][1:], paired=True)


@pytest.mark.parametrize("shift", [0.01, 1.0])
def test_neither_hosts_nor_batches_change_the_distance(shift):
    """Far from the origin, where sums of squares would lose it."""
    a, b = (normal(s, 3000, 16).astype(np.float32) + 300 for s in (0, 1))
    b += shift
    expected = distances.frechet_distance(a, b)

    def gathered(features, cuts, batch):
        hosts = []
        for part in np.split(features, cuts):
            host = Moments(16)
            for start in range(0, len(part), batch):
                host.add(part[start : start + batch])
            hosts.append(host.pack())
        return Moments.merged(Moments.unpack(host) for host in hosts[::-1])

    for cuts, batch in (([1500], 128), ([1, 700, 2900], 7), ([], 5000)):
        found = distances.frechet(gathered(a, cuts, batch), gathered(b, cuts[:1], batch))
        assert found == pytest.approx(expected, rel=1e-6)
    blocks = distances.frechet_estimate(distances.blocks_of(a), distances.blocks_of(b, 7))
    assert blocks.value == pytest.approx(expected, rel=1e-6)


def test_the_jackknife_of_a_mean_is_the_textbooks():
    x = normal(0, 30)
    without = (x.sum() - x) / 29
    side = estimate.LeftOut(without, np.ones(30))
    assert side.bias(x.mean()) == pytest.approx(0, abs=1e-12)
    assert side.variance(x.mean()) == pytest.approx(x.var(ddof=1) / 30)
    with pytest.raises(ValueError, match="at least 2 blocks on a side"):
        estimate.jackknife(1.0, (3, 3), [])
    # What must lie higher keeps the width of its error above the least that it can be.
    free = estimate.jackknife(x.mean(), (30, 0), [side])
    found = estimate.jackknife(x.mean(), (30, 0), [side], least=1e3)
    assert found.low == 1e3
    assert found.high - 1e3 == pytest.approx((free.high - free.low) / 2)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (normal(0, 8, 8), "8 features of dimension 8: the covariance is singular"),
        (np.full((40, 8), 0.1, np.float32), "all 40 features are the same"),
    ],
)
def test_what_a_distance_does_not_tell_is_said_in_one_line(features, told, caplog):
    with caplog.at_level(logging.WARNING, logger="ssldiff_jax"):
        found = distances.frechet_distance(features, normal(1, 40, 8))
    assert np.isfinite(found)
    (record,) = caplog.records
    assert told in record.getMessage()
    assert "\n" not in record.getMessage()


def test_features_that_cannot_be_compared_are_refused():
    x = normal(0, 20, 4)
    with pytest.raises(ValueError, match="expected features of one dimension, got 4 and 3"):
        distances.frechet(Moments.of(x), Moments.of(x[:, :3]))
    x[3, 1], x[7] = np.nan, np.inf
    with pytest.raises(ValueError, match="finite features, got NaN or infinity in 2 of 20"):
        distances.frechet_distance(x, x)
    with pytest.raises(ValueError, match="expected features to make blocks of, got none"):
        distances.blocks_of(x[:0])
    with pytest.raises(ValueError, match="at least 2 vectors for a covariance, got 0"):
        distances.frechet(Moments(4), Moments(4))
