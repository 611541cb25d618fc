"""Files of weights mapped into memory."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ssldiff_jax.core import memory
from ssldiff_jax.formats import mapped

MB = 2**20


def test_every_type_is_as_the_library_reads_it(tmp_path):
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?", ml_dtypes.bfloat16]
    # Of odd lengths: a tensor may begin at any byte.
    tensors = {f"t{i}": np.arange(3 + i).astype(kind) for i, kind in enumerate(kinds)}
    tensors |= {"none": np.zeros((0, 3), np.float32), "one": np.full((), 2.5, np.float32)}
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"made": "here"})
    read = mapped.read(path)
    assert read.keys() == tensors.keys()
    for name, value in safetensors.numpy.load_file(path).items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)
    with pytest.raises(ValueError, match="read-only"):
        read["t1"][0] = 1


def test_what_is_released_takes_no_memory_and_is_read_again(tmp_path):
    path, count = tmp_path / "w.safetensors", 16 * MB
    safetensors.numpy.save_file({"a": np.zeros(count // 4, np.float32), "b": np.ones(3)}, path)
    tensors = mapped.read(path)
    before = memory.rss_mb()
    assert tensors["a"].sum() == 0
    assert memory.rss_mb() - before > 14
    # A view of a view, as a table hands it on.
    mapped.release(tensors["a"].reshape(1024, -1).T)
    assert memory.rss_mb() - before < 2
    assert tensors["a"].sum() == 0
    np.testing.assert_array_equal(tensors["b"], 1)


def test_other_arrays_are_left_alone():
    array = np.arange(6).reshape(2, 3)
    mapped.release(array.T)
    np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])
