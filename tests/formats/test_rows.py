"""Array files that are written part by part are those that NumPy writes."""

import errno
import resource

import numpy as np
import pytest

from ssldiff_jax.formats import rows


@pytest.mark.parametrize(
    ("shape", "dtype"), [((7, 3), np.float32), ((7, 4), np.int32), ((0, 4), np.int32), ((5,), "f2")]
)
def test_the_file_is_the_one_that_numpy_saves(tmp_path, shape, dtype):
    array = (np.random.default_rng(0).normal(size=shape) * 100).astype(dtype)
    np.save(tmp_path / "expected.npy", array)
    rows.write(tmp_path / "a.npy", shape, dtype, np.array_split(array, 3))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_parts_are_stored_in_the_type_of_the_file(tmp_path):
    rows.write(tmp_path / "a.npy", (4, 2), np.float32, [np.arange(8).reshape(2, 4).T])
    stored = np.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(stored, np.arange(8).reshape(2, 4).T)
    assert stored.dtype == np.float32


def test_too_few_rows_or_other_ones_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must have 4 rows, got 3"):
        rows.write(tmp_path / "a.npy", (4, 2), np.float32, [np.zeros((3, 2))])
    with pytest.raises(ValueError, match=r"must have rows of \(2,\), got \(3,\)"):
        rows.write(tmp_path / "a.npy", (4, 2), np.float32, [np.zeros((4, 3))])


def test_a_file_that_does_not_fit_is_an_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            rows.write(tmp_path / "a.npy", (9, 9999), np.float32, np.zeros((9, 1, 9999)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
