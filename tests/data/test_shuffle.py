import numpy as np
import pytest

from ssldiff_jax.data import shuffle


@pytest.mark.parametrize("count", [1, 2, 3, 64, 100, 1000, 4097])
def test_every_epoch_is_a_permutation(count):
    found = shuffle.examples_at(np.arange(3 * count), count, seed=7).reshape(3, count)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(count), (3, 1)))


def test_epochs_and_seeds_differ():
    first, second = shuffle.examples_at(np.arange(2000), 1000, seed=0).reshape(2, 1000)
    other = shuffle.examples_at(np.arange(1000), 1000, seed=1)
    for a, b in ((first, second), (first, other)):
        assert (a == b).mean() < 0.01


def test_neighbours_come_from_anywhere():
    """Places, and steps between places, look as if drawn at random."""
    count = 10_000
    found = shuffle.examples_at(np.arange(count), count, seed=3)
    assert abs(np.corrcoef(np.arange(count), found)[0, 1]) < 0.03
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03
    # Of a random permutation one place in e is nobody's larger neighbour; here: ups and downs.
    turns = np.diff(np.sign(np.diff(found))) != 0
    assert abs(turns.mean() - 2 / 3) < 0.02


@pytest.mark.parametrize(("wanted", "there"), [(0, 5), (5, 5), (9, 5), (300, 300_000_000)])
def test_the_first_of_a_random_order_are_different_ones(wanted, there):
    found = shuffle.first(wanted, there, seed=4)
    assert len(set(found.tolist())) == len(found) == min(wanted, there)
    np.testing.assert_array_equal(found[:3], shuffle.first(3, there, seed=4)[:wanted])
    assert wanted < 300 or np.median(found) == pytest.approx(there / 2, rel=0.3)


def test_places_far_away_cost_the_same_and_are_the_same():
    count = 300_000_000
    places = np.array([0, count - 1, count, 5 * count + 17])
    whole = shuffle.examples_at(places, count, seed=1)
    one_by_one = [int(shuffle.examples_at(np.array([p]), count, seed=1)[0]) for p in places]
    assert whole.tolist() == one_by_one
    assert ((whole >= 0) & (whole < count)).all()
