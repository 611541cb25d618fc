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
_KEPT: list[Callable[..., bool]] = []


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Write blocks out in what is traced meanwhile, to count what it computes: XLA counts the body
    of a loop once."""
    _WRITTEN_OUT.append(None)
    try:
        yield
    finally:
        _WRITTEN_OUT.pop()


@contextlib.contextmanager
def keeping(policy: Callable[..., bool]) -> Iterator[None]:
    """Let loops keep of each block, for the gradient, what it is given and what `policy` says, and
    compute the rest again, block by block.

    `jax.checkpoint` of a function with a loop in it would compute all blocks again before the first
    gradient, and hold what all of them need at once.
    """
    _KEPT.append(policy)
    try:
        yield
    finally:
        _KEPT.pop()


def _is_loop() -> bool:
    return platform.target() != "cpu" and not _WRITTEN_OUT


def fold(
    step: Callable[[jax.Array, Any], tuple[jax.Array, Any]], x: jax.Array, stacked: Any, depth: int
) -> tuple[jax.Array, Any]:
    """`step` of every block's part of `stacked`, arrays (depth, …), one after the other, as
    `jax.lax.scan` has it.

    On accelerators a loop, which is compiled once for all blocks; on CPU blocks are written out.
    """
    if _is_loop():
        # A loop's iterations are not merged anyway.
        again = lambda step: jax.checkpoint(step, policy=_KEPT[-1], prevent_cse=False)
        return jax.lax.scan(again(step) if _KEPT else step, x, stacked)
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


def are_looped(params: Any) -> bool:
    """Whether what is traced now goes through blocks of a tree in a loop."""
    return _is_loop() and are_in(params)
