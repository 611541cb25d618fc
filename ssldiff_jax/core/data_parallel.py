"""Batches of one size, computed by one device or all of a mesh, and parameters that are brought
there once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from ssldiff_jax.core import platform


def map_batches(
    function: Callable[..., Any], arrays: Sequence[np.ndarray | Sequence[Any]], batch_size: int
) -> Iterator[Any]:
    """Results of `function(*batch)` for batches of exactly `batch_size` examples, so that one
    program serves all of them.

    The last batch is filled up with its last example, whose results are cut off. One batch is made
    and held at a time.

    Args:
        function: arrays, one batch of each, → an array or a tree of arrays, examples first.
        arrays: of one length, examples first; of what else can be sliced, a slice is made an array.
    """
    for batch, count in _batches(arrays, batch_size):
        yield _taken(function(*batch), count)


def start_batches(
    function: Callable[..., Any], arrays: Sequence[np.ndarray | Sequence[Any]], batch_size: int
) -> Callable[[], list[Any]]:
    """The same for a function that waits for nothing, such as `DataParallel.start`: all batches are
    begun, and what is returned waits for their results."""
    begun = [(function(*batch), count) for batch, count in _batches(arrays, batch_size)]
    return lambda: [_taken(results, count) for results, count in begun]


def _batches(
    arrays: Sequence[np.ndarray | Sequence[Any]], batch_size: int
) -> Iterator[tuple[list[np.ndarray], int]]:
    """Batches, each with how many of its examples are no filling."""
    for start in range(0, len(arrays[0]), batch_size):
        batch = [np.asarray(a[start : start + batch_size]) for a in arrays]
        yield [filled(b, batch_size) for b in batch], len(batch[0])


def _taken(results: Any, count: int) -> Any:
    return jax.tree.map(lambda result: np.asarray(result)[:count], results)


def filled(batch: np.ndarray, size: int) -> np.ndarray:
    """`size` examples: those of a batch, and the last one again."""
    missing = size - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch


def one_device() -> SingleDeviceSharding:
    """This process's first device. What is put there by name is committed to it, as restored
    weights are: jit compiles anew for an argument whose commitment differs from the last one's."""
    return SingleDeviceSharding(jax.local_devices()[0])


class Placed:
    """Parameters on devices, moved there when they differ from those of the last call."""

    def __init__(self):
        self._previous: tuple[Any, Sharding | None] | None = None
        self._placed: Any = None

    def __call__(self, params: Any, sharding: Sharding | None) -> Any:
        """They as `sharding` has it, on the first device for None; arrays that lie there already
        are taken as they are."""
        sharding = sharding or one_device()
        previous = self._previous
        # By identity: to compare values would read gigabytes at every call.
        if previous is None or previous[0] is not params or previous[1] != sharding:
            self._placed = jax.tree.map(lambda leaf: put(leaf, sharding), params)
            self._previous = params, sharding
        return self._placed


def put(leaf: Any, sharding: Sharding) -> jax.Array:
    """An array as `sharding` has it, committed; itself where it lies so."""
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding and leaf.committed:
        return leaf
    if isinstance(sharding, SingleDeviceSharding):
        # Weights of files are NumPy: given to a jit as they are, they are copied at every call.
        return jax.device_put(leaf, sharding)
    array = np.asarray(leaf)
    # Each process fills its own devices: a mesh may have devices of others.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """A program (params, batch) → array, its batch split over the devices of a mesh.

    Where a mesh has devices of several processes, all must call it with the same batch; each gets
    the whole result.

    Attributes:
        program: it may treat the examples of a batch one by one only.
        mesh: None for one device.
    """

    program: Callable[[Any, Any], jax.Array]
    mesh: Mesh | None = None

    def __call__(self, params: Any, batch: np.ndarray) -> np.ndarray:
        """The program's result; the batch may have any length."""
        return np.asarray(self.start(params, batch))[: len(batch)]

    def start(self, params: Any, batch: np.ndarray) -> jax.Array:
        """The same begun, and not waited for; what filled up the batch comes last."""
        if self.mesh is None:
            return self._jit(self._placed(params, None), batch)
        count = self.multiple_of(len(batch))
        whole = put(filled(batch, count), self._split)
        return self._jit(self._placed(params, self._whole), whole)

    def multiple_of(self, count: int) -> int:
        """The least number of examples, `count` or more, that fills all devices."""
        devices = self.mesh.size if self.mesh else 1
        return -(-count // devices) * devices

    @functools.cached_property
    def _placed(self) -> Placed:
        return Placed()

    @functools.cached_property
    def _jit(self) -> Callable[..., jax.Array]:
        options = platform.compiler_options()
        if self.mesh is None:
            return jax.jit(self.program, compiler_options=options)
        # A result that this process sees all parts of needs no exchange.
        out = self._split if self._split.is_fully_addressable else self._whole
        return jax.jit(self.program, out_shardings=out, compiler_options=options)

    @property
    def _split(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))

    @property
    def _whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())


def local_mesh() -> Mesh | None:
    """This process's devices; None where it has but one."""
    devices = jax.local_devices()
    return Mesh(np.array(devices), ("data",)) if len(devices) > 1 else None
