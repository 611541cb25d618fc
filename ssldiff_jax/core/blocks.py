"""Blocks of a network that are alike: their arrays lie together, and a program has them once.

Whatever a program does with them, parameters are the same: arrays (depth, …), one block after the
other along the leading axis, under the name `STACKED`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ssldiff_jax.core import platform

STACKED = "stacked"

_WRITTEN_OUT: list[None] = []


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Write blocks out in what is traced meanwhile, to count what it computes: XLA counts the body
    of a loop once."""
    _WRITTEN_OUT.append(None)
    try:
        yield
    finally:
        _WRITTEN_OUT.pop()


def fold(
    step: Callable[[jax.Array, Any], tuple[jax.Array, Any]], x: jax.Array, stacked: Any, depth: int
) -> tuple[jax.Array, Any]:
    """`step` of every block's part of `stacked`, arrays (depth, …), one after the other, as
    `jax.lax.scan` has it.

    On accelerators a loop, which is compiled once for all blocks; on CPU blocks are written out.
    """
    if platform.target() != "cpu" and not _WRITTEN_OUT:
        return jax.lax.scan(step, x, stacked)
    leaves, treedef = jax.tree.flatten(stacked)
    # One operation, whose gradient is one too: that of a slice is as long as the whole.
    parts = [jax.lax.split(leaf, (1,) * depth, axis=0) for leaf in leaves]
    results = []
    for i in range(depth):
        x, y = step(x, treedef.unflatten([part[i][0] for part in parts]))
        results.append(y)
    return x, jax.tree.map(lambda *ys: jnp.stack(ys), *results)


def rank(path: tuple, ndim: int) -> int:
    """Dimensions that a parameter of `ndim` has in one block, by its path in a tree."""
    return ndim - any(jax.tree_util.keystr((key,), simple=True) == STACKED for key in path)


def are_in(params: Any) -> bool:
    """Whether a tree has stacked blocks."""
    named = jax.tree_util.tree_leaves_with_path(params)
    return any(rank(path, 1) == 0 for path, _ in named)
