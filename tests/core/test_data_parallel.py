"""Parameters are brought to devices once, not with every batch."""

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
