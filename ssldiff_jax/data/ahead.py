"""What comes next is made by threads while the last is used."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterable[T], *, threads: int, count: int) -> Iterator[R]:
    """What `work` makes of items, in their order; up to `count` more are at work or done.

    Raises what the work raises, at its item.
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
