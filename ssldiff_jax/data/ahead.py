"""What comes next is made by threads, and begun on the device, while the last is used.

A step that reads, computes on a device and writes is three loops that need not wait for one
another: `started(start, ahead(read, parts, …), count=…)`, whose results the caller writes.
"""

import collections
import concurrent.futures
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


def ahead(
    work: Callable[[T], R], items: Iterable[T], *, threads: int, count: int
) -> Generator[R, None, None]:
    """What `work` makes of items, in their order; up to `count` more are at work or done.

    Raises what the work raises, at its item. Closed early, it ends its threads.
    """
    waiting: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Of a reader that stops early: what has not begun never does.
            pool.shutdown(wait=True, cancel_futures=True)


def started(
    start: Callable[[T], Callable[[], R]], items: Generator[T, None, None], *, count: int
) -> Generator[R, None, None]:
    """Results for items, in their order: `start` begins the work on one, as a device computes
    without being waited for, and what it returns waits for the result.

    One thread takes items and starts them, up to `count` beyond the result that the caller has or
    waits for. Raises what taking, starting or waiting raises, at its item. `items` are closed with
    it.
    """
    waits, end = map(start, items), object()
    take = lambda _: next(waits, end)
    with (
        contextlib.closing(items),
        # The next is taken only after the last: one thread.
        contextlib.closing(ahead(take, itertools.count(), threads=1, count=count)) as taken,
    ):
        for wait in taken:
            if wait is end:
                return
            yield wait()
