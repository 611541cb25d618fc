"""Numbers known beforehand: what is exact stays so, and intervals hold what they should."""

import itertools

import numpy as np
import pytest
import scipy.stats

from ssldiff_jax.core import estimates

Estimate = estimates.Estimate


def test_sums_and_products_of_exact_numbers_are_exact():
    total = estimates.total([Estimate(2), Estimate(3) * 4, Estimate(5) * Estimate(6)])
    assert total == Estimate(44)
    assert total.as_json() == {"value": 44, "basis": "exact"}


def test_bounds_go_with_the_number():
    guess = Estimate(10, "a sample", 8, 13)
    for both in (guess * 3 + Estimate(1), Estimate(1) + Estimate(3) * guess):
        assert (both.value, both.low, both.high) == (31, 25, 40)
        assert both.source == "a sample"
    other = Estimate(2, "another", 1, 4)
    product = guess * other
    corners = [a * b for a, b in itertools.product((8, 13), (1, 4))]
    assert (product.low, product.high) == (min(corners), max(corners))
    assert product.source == "a sample; another"


def test_json_gives_back_what_was_written():
    for number in (Estimate(7), Estimate(10, "a sample", 8, 13)):
        assert Estimate.from_json(number.as_json()) == number
    unbounded = Estimate(10, "a table").as_json()
    assert unbounded == {"value": 10, "basis": "estimate", "from": "a table"}


@pytest.mark.parametrize(("count", "sampled"), [(40, 8), (1000, 8), (1000, 100)])
def test_intervals_hold_the_sum_as_often_as_they_say(count, sampled):
    """By taking samples of things whose sum is known."""
    random, held = np.random.default_rng(0), 0
    things = random.normal(100, 20, count)
    for _ in range(2000):
        sample = random.choice(things, sampled, replace=False)
        about = estimates.of_mean(sample, count, "a sample")
        assert about.value == pytest.approx(count * sample.mean())
        held += about.low <= things.sum() <= about.high
    assert held / 2000 == pytest.approx(0.95, abs=0.02)


def test_what_was_looked_at_whole_is_exact():
    assert estimates.of_mean([1, 2, 3], 3, "a sample") == Estimate(6)
    assert estimates.of_share(2, 5, 5, "a sample") == Estimate(2)


def test_a_share_is_as_wide_as_its_exact_interval():
    for hits, looked_at in ((0, 8), (2, 8), (8, 8), (30, 100)):
        about = estimates.of_share(hits, looked_at, 10**6, "a sample")
        exact = scipy.stats.binomtest(hits, looked_at).proportion_ci(0.95, "exact")
        assert about.low / 10**6 == pytest.approx(exact.low, abs=1e-9)
        assert about.high / 10**6 == pytest.approx(exact.high, abs=1e-9)
