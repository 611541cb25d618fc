import threading

import pytest

from ssldiff_jax.data import ahead


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (4, 3), (3, 20)])
def test_results_keep_their_order_and_few_are_made_before_they_are_used(threads, count):
    begun = []

    def work(item):
        begun.append(item)
        return item**2

    for used, found in enumerate(ahead.ahead(work, range(50), threads=threads, count=count)):
        assert found == used**2
        assert len(begun) <= used + 1 + count
    assert sorted(begun) == list(range(50))


def test_items_are_at_work_together():
    together = threading.Barrier(3)
    work = lambda item: together.wait(timeout=60) >= 0
    assert list(ahead.ahead(work, range(6), threads=3, count=3)) == [True] * 6


def test_an_error_comes_at_its_item():
    found = ahead.ahead(lambda i: 1 // (3 - i), range(9), threads=2, count=4)
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
