"""How many threads the OpenBLAS takes that numpy brings, and that of SciPy."""

import contextlib
import ctypes
import functools
import pathlib
import threading
from collections.abc import Callable, Iterator

import numpy as np  # noqa: F401  its library must be there when libraries are looked for

_MAPS = pathlib.Path("/proc/self/maps")
# As numpy's and scipy's wheels name them, with integers of 64 or 32 bits, and as distributions do.
_NAMES = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)
_lock = threading.Lock()
_outside: list[list[int]] = []  # the counts to go back to, once for each that is within


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within, each of numpy's products and decompositions takes its calling thread alone.

    OpenBLAS's threads wait for one another by spinning: where other work shares the cores,
    decompositions of 768² took ten times as long by two threads as by one. To use all cores, call
    from several threads. Holds for the whole process; does nothing where the library is another.
    """
    with _lock:
        # An inner block must not note its own 1 as what to go back to.
        _outside.append(_outside[0] if _outside else threads())
        _set([1] * len(_libraries()))
    try:
        yield
    finally:
        with _lock:
            before = _outside.pop()
            if not _outside:
                _set(before)


def threads() -> list[int]:
    """How many each loaded library takes now; of none where there is no OpenBLAS."""
    return [get() for get, _ in _libraries()]


def _set(counts: list[int]) -> None:
    for (_, put), count in zip(_libraries(), counts, strict=True):
        put(count)


@functools.cache
def _libraries() -> tuple[tuple[Callable[[], int], Callable[[int], None]], ...]:
    """What gets and sets the count of each library that is loaded."""
    if not _MAPS.exists():
        return ()
    # It brings a library of its own, which would be missed if it were loaded later.
    with contextlib.suppress(ImportError):
        import scipy.linalg  # noqa: F401

    # proc(5): the sixth field is the mapped file, and may hold blanks.
    words = [line.split(maxsplit=5) for line in _MAPS.read_text().splitlines()]
    paths = {w[5] for w in words if len(w) == 6 and "openblas" in pathlib.Path(w[5]).name}
    libraries = []
    for library in map(ctypes.CDLL, sorted(paths)):
        pairs = ((getattr(library, get, None), getattr(library, put, None)) for get, put in _NAMES)
        libraries += [pair for pair in pairs if all(pair)][:1]
    return tuple(libraries)
