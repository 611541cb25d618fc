"""Batches of one size, and parameters that are brought to devices once, not with every batch."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssldiff_jax.core import data_parallel

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))
WHOLE = NamedSharding(MESH, PartitionSpec())


@pytest.fixture
def brought(monkeypatch):
    """What is brought to devices, in order."""
    found, put, make = [], jax.device_put, jax.make_array_from_callback
    monkeypatch.setattr(jax, "device_put", lambda a, *rest: found.append(a) or put(a, *rest))
    noted = lambda shape, sharding, part: found.append(shape) or make(shape, sharding, part)
    monkeypatch.setattr(jax, "make_array_from_callback", noted)
    return found


@pytest.mark.parametrize("sharding", [None, WHOLE])
def test_the_same_parameters_are_brought_once(brought, sharding):
    placed, params = data_parallel.Placed(), {"a": np.ones(3), "b": np.zeros((2, 2))}
    first = placed(params, sharding)
    assert placed(params, sharding) is first
    assert len(brought) == 2
    np.testing.assert_array_equal(first["a"], params["a"])
    other = {"a": np.full(3, 2.0), "b": params["b"]}
    np.testing.assert_array_equal(placed(other, sharding)["a"], other["a"])
    assert len(brought) == 4
    # Those that lie there already stay where they are.
    again = data_parallel.Placed()(first, sharding)
    assert all(again[name] is first[name] for name in first)
    assert len(brought) == 4


@pytest.mark.parametrize("mesh", [None, MESH])
def test_batches_bring_no_parameters_again(brought, mesh):
    run = data_parallel.DataParallel(lambda params, batch: batch * params["a"], mesh)
    params = {"a": np.float32([3.0])}
    for count in (4, 2, 4):
        batch = np.arange(count, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(run(params, batch), 3 * batch)
    of_params = [a for a in brought if a is params["a"] or a == (1,)]
    assert len(of_params) == 1


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_map_batches_runs_batches_of_one_size_and_cuts_what_filled_the_last(count):
    x, sizes = np.arange(2 * count).reshape(count, 2), set()

    def run(batch, index):
        sizes.add((batch.shape, index.shape))
        return {"sum": batch.sum(axis=1), "index": index}

    results = list(data_parallel.map_batches(run, (x, np.arange(count)), 4))
    assert sizes == ({((4, 2), (4,))} if count else set())
    assert [len(r["sum"]) for r in results] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    for name, expected in (("sum", x.sum(axis=1)), ("index", np.arange(count))):
        found = np.concatenate([np.zeros(0, int), *(r[name] for r in results)])
        np.testing.assert_array_equal(found, expected)


def test_map_batches_fills_a_batch_with_its_last_example_and_takes_lists():
    batches = []
    images = [np.full((2, 2), i, np.uint8) for i in range(3)]
    list(data_parallel.map_batches(lambda b: batches.append(b) or b, (images,), 2))
    assert [b[:, 0, 0].tolist() for b in batches] == [[0, 1], [2, 2]]
    assert batches[1].dtype == np.uint8


def test_map_batches_makes_one_batch_at_a_time():
    """A caller that stops early has made no more than it took."""
    made = []
    results = data_parallel.map_batches(lambda b: made.append(len(b)) or b, (np.arange(8),), 2)
    next(results)
    assert made == [2]


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_start_batches_begins_all_and_waits_when_it_is_asked_to(count):
    begun, x = [], np.arange(2 * count).reshape(count, 2)

    class Result:
        def __init__(self, batch):
            begun.append(batch)
            self.batch = batch

        def __array__(self, dtype=None, copy=None):
            assert len(begun) == -(-count // 4)
            return self.batch.sum(axis=1)

    wait = data_parallel.start_batches(Result, (x,), 4)
    assert {b.shape for b in begun} == ({(4, 2)} if count else set())
    found = np.concatenate([np.zeros(0, int), *wait()])
    np.testing.assert_array_equal(found, x.sum(axis=1))


@pytest.mark.parametrize("mesh", [None, MESH])
def test_start_batches_runs_on_devices(mesh):
    run = data_parallel.DataParallel(lambda params, batch: batch * params, mesh)
    x = np.arange(5, dtype=np.float32)
    wait = data_parallel.start_batches(lambda b: run.start(np.float32(2), b), (x,), 3)
    assert [len(part) for part in wait()] == [3, 2]
    np.testing.assert_array_equal(np.concatenate(wait()), 2 * x)


@pytest.mark.parametrize("mesh", [None, MESH])
def test_map_batches_runs_on_devices(mesh):
    run = data_parallel.DataParallel(lambda params, batch: batch * params, mesh)
    params, x = np.float32(2), np.arange(5, dtype=np.float32)
    found = data_parallel.map_batches(lambda batch: run(params, batch), (x,), 3)
    np.testing.assert_array_equal(np.concatenate(list(found)), 2 * x)
