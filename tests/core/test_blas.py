import subprocess
import sys
import threading

import numpy as np
import pytest

from ssldiff_jax.core import blas


@pytest.fixture
def two():
    """Libraries that take two threads each, whatever the machine has."""
    before = blas.threads()
    blas._set([2] * len(before))
    yield [2] * len(before)
    blas._set(before)


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are looked for in /proc")
def test_numpys_library_is_found():
    told = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    assert bool(blas.threads()) == ("openblas" in told)


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are looked for in /proc")
def test_scipys_library_is_found_though_it_is_loaded_later():
    """Of a process that looked for libraries before it imported SciPy."""
    code = """
from ssldiff_jax.core import blas
with blas.one_thread():
    import scipy.linalg
    blas._libraries.cache_clear()
    print(blas.threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[1] * len(blas.threads())}\n"


def test_one_thread_within_and_as_many_as_before_after(two):
    seen = []

    def fail():
        with blas.one_thread():
            with blas.one_thread():
                seen.append(blas.threads())
            seen.append(blas.threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [[1] * len(two)] * 2
    assert blas.threads() == two


def test_the_last_of_threads_that_overlap_puts_back_the_count(two):
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with blas.one_thread():
            first_is_in.set()
            assert second_is_in.wait(10)
        first_is_out.set()

    def second():
        assert first_is_in.wait(10)
        with blas.one_thread():
            second_is_in.set()
            assert first_is_out.wait(10)
            seen.append(blas.threads())

    at_work = [threading.Thread(target=call) for call in (first, second)]
    for thread in at_work:
        thread.start()
    for thread in at_work:
        thread.join()
    assert seen == [[1] * len(two)]
    assert blas.threads() == two


def test_a_decomposition_is_the_same(two):
    x = np.random.default_rng(0).normal(size=(300, 300))
    many = np.linalg.eigvalsh(x @ x.T)
    with blas.one_thread():
        np.testing.assert_allclose(np.linalg.eigvalsh(x @ x.T), many, atol=1e-10 * many.max())
