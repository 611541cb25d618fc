"""The order in which examples are seen: a permutation for every epoch that no one stores."""

import numpy as np
from jaxtyping import Int, UInt64

# Four rounds of a Feistel network are a strong pseudorandom permutation (Luby and Rackoff 1988).
_ROUNDS = 4
# The increment and the multipliers of SplitMix64 (Steele et al. 2014).
_GOLDEN, _MIX_1, _MIX_2 = (
    np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def examples_at(places: Int[np.ndarray, "N"], count: int, seed: int) -> Int[np.ndarray, "N"]:
    """Which of `count` examples stand at these places of an endless stream; each epoch is another
    permutation of all of them.

    A Feistel network over as many bits as `count` needs; where it leads outside, it is walked on
    (Black and Rogaway 2002). Time and memory do not grow with `count`.
    """
    epoch, position = np.divmod(np.asarray(places, np.int64), count)
    # Halves of equal length: at most 4·count places, so that a walk takes 4 steps on average or
    # fewer.
    half = max((int(count - 1).bit_length() + 1) // 2, 1)
    # Modulo 2⁶⁴ on purpose; NumPy warns of it for scalars.
    with np.errstate(over="ignore"):
        key = _mixed(epoch.astype(np.uint64) * _GOLDEN + _mixed(np.uint64(seed % 2**64)))
        shuffled = _network(position.astype(np.uint64), key, half)
        # The network permutes all its places: a walk from a place inside comes back inside.
        while (outside := shuffled >= count).any():
            shuffled[outside] = _network(shuffled[outside], key[outside], half)
    return shuffled.astype(np.int64)


def first(at_most: int, count: int, seed: int) -> Int[np.ndarray, "N"]:
    """The first `at_most` of `count` examples in a random order, all where there are no more; time
    and memory grow with `at_most` alone."""
    return examples_at(np.arange(min(at_most, count)), count, seed)


def _network(
    value: UInt64[np.ndarray, "N"], key: UInt64[np.ndarray, "N"], half: int
) -> UInt64[np.ndarray, "N"]:
    bits, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = value >> bits, value & mask
    for number in range(_ROUNDS):
        mixed = _mixed(key + right * _GOLDEN + np.uint64(number))
        # (L, R) → (R, L ⊕ F(R)) can be undone whatever F is, so that all rounds are a permutation.
        left, right = right, left ^ (mixed & mask)
    return (left << bits) | right


def _mixed(value: UInt64[np.ndarray | np.generic, "*N"]) -> UInt64[np.ndarray | np.generic, "*N"]:
    """A bijection of 64 bits that scatters them (the finaliser of SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))
