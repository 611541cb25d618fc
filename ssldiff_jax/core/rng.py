"""Random streams: one root seed, every stream by name and step, noise by example index."""

import zlib
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Int, Shaped

from ssldiff_jax.core import arrays


def stream(seed: int, name: str, step: int | jax.Array | None = None) -> arrays.Key:
    """The key of the stream `name`, at `step` if it is used more than once."""
    # CRC-32 and not hash(), which Python salts anew in every process.
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return key if step is None else jax.random.fold_in(key, step)


def seed_of(seed: int, name: str, number: int = 0) -> int:
    """The seed, 31 bits, of the stream `name` for what takes a number and no key: the order of
    data, numpy, and what makes streams of its own from it. `number` tells images or repetitions
    apart. Sums of a seed and a number would give two streams of one run, or of runs of neighbouring
    seeds, the same numbers.
    """
    # SeedSequence takes no negative number.
    entropy = (seed % 2**64, zlib.crc32(name.encode()), number)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


def per_example(
    key: arrays.Key, index: Int[arrays.AnyArray, "B"], draw: Callable, *args
) -> Shaped[jax.Array, "B *S"]:
    """Sample for every example from its own key, so that no sample depends on how the batch is
    split.

    Args:
        index: global example indices, `(B,)` int.
        draw: a function (key, *args) → array, such as `jax.random.normal`.
    """
    # By fold_in: a split would need the length of the batch, which differs from device to device.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return jax.vmap(lambda k: draw(k, *args))(keys)


def at_place(key: arrays.Key, step, row, col) -> arrays.Key:
    """The key of the noise at a place of a lattice at a step, the same on every device."""
    for number in (step, row, col):
        key = jax.random.fold_in(key, number)
    return key
