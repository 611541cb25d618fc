"""A batch that several devices share, seen from one of them.

A loss is written for the examples of one device; what has to see those of all asks here. Where no
one shares the batch, everything is as it is.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

_SHARED_OVER: list[tuple[str, ...]] = []


@contextlib.contextmanager
def batch_axes(axes: tuple[str, ...]) -> Iterator[None]:
    """What is traced in the block runs on every device of these mesh axes, on its share."""
    _SHARED_OVER.append(axes)
    try:
        yield
    finally:
        _SHARED_OVER.pop()


def pmean(tree: Any) -> Any:
    """The mean over devices of what each found."""
    axes = _axes()
    return jax.lax.pmean(tree, axes) if axes else tree


def psum(x: jax.Array) -> jax.Array:
    """The sum over devices of what each found."""
    axes = _axes()
    return jax.lax.psum(x, axes) if axes else x


def all_gather(x: jax.Array) -> jax.Array:
    """The examples of all devices, in the order of the batch."""
    axes = _axes()
    # tiled: shares follow each other along the batch, where a new axis of devices is the default.
    return jax.lax.all_gather(x, axes, tiled=True) if axes else x


def num_shares() -> int:
    """Devices that share the batch."""
    axes = _axes()
    return jax.lax.axis_size(axes) if axes else 1


def offset(length: int) -> jax.Array | int:
    """Where this device's share begins, if every device has `length`."""
    axes = _axes()
    return jax.lax.axis_index(axes) * length if axes else 0


def _axes() -> tuple[str, ...]:
    return _SHARED_OVER[-1] if _SHARED_OVER else ()
