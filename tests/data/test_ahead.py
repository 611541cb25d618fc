import itertools
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


class BrokenError(Exception):
    pass


def fails_at(item, work=lambda i: i):
    def run(i):
        if i == item:
            raise BrokenError(f"at {i}")
        return work(i)

    return run


def read(items, count=0):
    return ahead.ahead(lambda i: i, items, threads=3, count=count)


def begin(item):
    return lambda: item**2


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_started_keeps_the_order_and_begins_few_before_they_are_used(length, count):
    begun, used = [], 0
    start = lambda item: begun.append(item) or begin(item)
    for used, result in enumerate(ahead.started(start, read(range(length)), count=count), 1):
        assert result == (used - 1) ** 2
        assert len(begun) <= used + count
    assert used == length
    assert begun == list(range(length))


def test_started_begins_the_next_before_the_last_is_waited_for():
    """A wait that ends only when two later items were begun, as those of a device that is busy."""
    begun = [threading.Event() for _ in range(10)]

    def start(item):
        begun[item].set()
        return lambda: begun[min(item + 2, 9)].wait(timeout=60)

    assert all(ahead.started(start, read(range(10)), count=2))


WAIT_FAILS = lambda item: fails_at(5, begin)(item) if item != 5 else lambda: fails_at(5)(5)
FAILING = {
    "reading": (begin, fails_at(5)),
    "starting": (fails_at(5, begin), lambda i: i),
    "waiting": (WAIT_FAILS, lambda i: i),
}


@pytest.mark.parametrize("where", FAILING)
def test_started_raises_what_fails_at_its_item_and_ends_its_threads(where):
    start, work = FAILING[where]
    threads = set(threading.enumerate())
    results = ahead.started(
        start, ahead.ahead(work, itertools.count(), threads=3, count=4), count=2
    )
    assert list(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    with pytest.raises(BrokenError, match=r"^at 5$"):
        next(results)
    assert set(threading.enumerate()) == threads


def test_started_that_is_closed_early_ends_its_threads_and_reads_no_more():
    threads, begun = set(threading.enumerate()), []
    work = lambda item: begun.append(item)
    items = ahead.ahead(work, itertools.count(), threads=2, count=3)
    results = ahead.started(lambda item: lambda: item, items, count=2)
    for _ in range(10):
        next(results)
    results.close()
    assert set(threading.enumerate()) == threads
    # Ten are used, two begun beside them, and three are read ahead of those.
    assert 10 <= len(begun) <= 10 + 2 + 3
