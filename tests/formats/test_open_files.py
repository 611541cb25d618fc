"""Files that stay open are bounded over all stores, and too many are told from damage."""

import gc
import os
import pathlib
import resource

import numpy as np
import pytest

from ssldiff_jax.data import store
from ssldiff_jax.formats import open_files

FIELD = store.Field("value", (), "int64")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores of 60 files each, of 2 examples."""
    folder = tmp_path_factory.mktemp("stores")
    for number in (0, 1):
        writer = store.StoreWriter(folder / str(number), (FIELD,), shard_size=2)
        writer.append(value=np.arange(120) + 1000 * number)
        writer.close()
    return [folder / "0", folder / "1"]


def num_open(under=""):
    folder, found = pathlib.Path("/proc/self/fd"), 0
    for name in os.listdir(folder):
        try:
            found += os.readlink(folder / name).startswith(str(under))
        except OSError:  # that of the listing itself
            continue
    return found


def read_all(folders):
    found = [store.Store(folder) for folder in folders]
    values = [part.batch(range(len(part)))["value"] for part in found]
    np.testing.assert_array_equal(values[0], np.arange(120))
    np.testing.assert_array_equal(values[1], np.arange(120) + 1000)
    return found


@pytest.mark.parametrize("most", [1, 7, 50])
def test_open_files_are_bounded_over_all_stores(stores, monkeypatch, most):
    monkeypatch.setattr(open_files, "SHARED", open_files.OpenFiles(most))
    found = read_all(stores)
    assert num_open(stores[0].parent) == most
    del found
    gc.collect()
    assert num_open(stores[0].parent) == 0


def test_no_more_than_half_of_what_is_allowed(stores, monkeypatch):
    monkeypatch.setattr(open_files, "limit", lambda: 40)
    monkeypatch.setattr(open_files, "SHARED", open_files.OpenFiles())
    found = read_all(stores)
    assert len(found) == 2
    assert num_open(stores[0].parent) == 20


def test_a_file_that_is_asked_again_is_not_opened_again():
    files, opened = open_files.OpenFiles(2), []
    get = lambda key: files.get((0, key), lambda: opened.append(key) or key)
    assert [get(k) for k in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert opened == [1, 2, 3, 2]  # 2 was the one used longest ago


def test_the_limit_is_raised_as_far_as_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = num_open() + 64
    assert low < before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
        assert open_files.limit() > low
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def full(monkeypatch):
    """A function that opens files until the process may have but `left` more."""
    before, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    monkeypatch.setattr(open_files, "limit", lambda: 4096)  # as if they were still to be had
    monkeypatch.setattr(open_files, "SHARED", open_files.OpenFiles())

    def fill(left):
        resource.setrlimit(resource.RLIMIT_NOFILE, (num_open() + 80, before[1]))
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(left):
            os.close(held.pop())

    yield fill
    for handle in held:
        os.close(handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_where_others_took_the_room_older_files_make_way(stores, full):
    found = [store.Store(folder) for folder in stores]
    full(9)
    for part, start in zip(found, (0, 1000), strict=True):
        np.testing.assert_array_equal(part.batch(range(120))["value"], np.arange(120) + start)


def test_too_many_open_files_are_told_from_damage(stores, full):
    found = store.Store(stores[0])
    full(0)
    with pytest.raises(OSError, match=r"ulimit -n.*00000\.array_record"):
        found[0]
