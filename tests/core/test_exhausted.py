"""Full disks and memory are recognised, whichever library says so."""

import errno
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tifffile
from PIL import Image

from ssldiff_jax.core import exhausted
from ssldiff_jax.data import store
from ssldiff_jax.formats import atomic

DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("cannot write /x/y.json: No space left on device"),
    ValueError(
        'RESOURCE_EXHAUSTED: Error writing "params/0": Failed to write 785119 bytes to file 19: '
        "[OS error 28: ENOSPC No space left on device]"
    ),
]
GIB = 1024**3
MEMORY = [
    (MemoryError(), None),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), None),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 40000000000 bytes."), 40 * 10**9),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12.50GiB."),
     int(12.5 * GIB)),
    (RuntimeError("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
                  "memory space hbm. Used 20.50G of 15.75G hbm."), int(20.5 * GIB)),
    (RuntimeError("std::bad_alloc"), None),
]  # fmt: skip
OTHER = [
    ValueError("config.sample.window_batch must be at least 1, got 0"),
    OSError(errno.EACCES, "Permission denied"),
    KeyError("memory"),
    RuntimeError("INVALID_ARGUMENT: shapes differ"),
]


def raised_from(error):
    """The same two calls further out, as libraries pass it on."""
    try:
        try:
            raise error
        except Exception as inner:
            raise ExceptionGroup("saving", [ValueError("other"), inner]) from None
    except Exception as group:
        try:
            raise KeyError("a handler failed")
        except KeyError as outer:
            outer.__cause__ = group
            return outer


@pytest.mark.parametrize("error", DISK, ids=str)
def test_full_disks_are_told_from_full_memory(error):
    for found in (error, raised_from(error)):
        assert exhausted.shortage(found) == exhausted.Shortage("disk", None)


@pytest.mark.parametrize(("error", "needed"), MEMORY, ids=str)
def test_memory_and_how_much_was_needed(error, needed):
    for found in (error, raised_from(error)):
        assert exhausted.shortage(found) == exhausted.Shortage("memory", needed)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_are_neither(error):
    assert exhausted.shortage(error) is None
    assert exhausted.shortage(raised_from(error)) is None


def shortage_of(work):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        work()
    return exhausted.shortage(caught.value)


def test_what_is_raised_where_memory_cannot_be_given():
    many = 1 << 46
    assert shortage_of(lambda: jnp.zeros(many, jnp.uint8)) == exhausted.Shortage("memory", many)
    assert shortage_of(lambda: np.zeros(many, np.uint8)) == exhausted.Shortage("memory", many)
    assert shortage_of(lambda: bytearray(1 << 60)).of == "memory"


@pytest.fixture
def small_files():
    """Files of at most 50 kB in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_store(path):
    writer = store.StoreWriter(path, (store.Field("x", (1000,), "float32"),))
    for _ in range(30):
        writer.append(x=np.random.default_rng(0).normal(size=(10, 1000)))
    writer.close()


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
WRITERS = {
    "json": lambda path: atomic.write_json(path, list(range(20_000))),
    "store": write_store,
    "png": lambda path: Image.fromarray(NOISE).save(path, "png"),
    "tiff": lambda path: tifffile.imwrite(path, NOISE),
    "npy": lambda path: np.save(path, NOISE),
    "safetensors": lambda path: safetensors.numpy.save_file({"x": NOISE}, path),
}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_what_is_raised_where_a_file_does_not_fit(tmp_path, small_files, name):
    assert shortage_of(lambda: WRITERS[name](tmp_path / "file")) == exhausted.Shortage("disk", None)


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path, small_files):
    path = tmp_path / "x.json"
    atomic.write_json(path, [1])
    with pytest.raises(OSError, match=r"cannot write .*x\.json"):
        atomic.write_json(path, list(range(20_000)))
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
