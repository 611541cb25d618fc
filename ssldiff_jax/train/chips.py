"""Accelerators, as their makers state them."""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Chip:
    """bfloat16 products a second, memory in bytes, and how a slice of them is called: by chips or
    by cores, of which a chip may have two."""

    flops: float
    memory: float
    slices: str = ""
    cores: int = 1


CHIPS: dict[str, Chip] = {
    "TPU v4": Chip(275e12, 32 * 2**30, "v4", 2),
    "TPU v5 lite": Chip(197e12, 16 * 2**30, "v5litepod"),
    "TPU v5": Chip(459e12, 95 * 2**30, "v5p", 2),
    "TPU v6 lite": Chip(918e12, 32 * 2**30, "v6e"),
    "NVIDIA A100": Chip(312e12, 80e9),
    "NVIDIA H100": Chip(989e12, 80e9),
    "NVIDIA H200": Chip(989e12, 141e9),
}
"""By how a device's kind begins."""

_GENERATIONS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}


def chip(kind: str) -> Chip | None:
    """The chip of a kind of device, None where it is not known."""
    names = [name for name in CHIPS if kind.startswith(name)]
    return CHIPS[max(names, key=len)] if names else None


def accelerator_type(topology: str) -> str:
    """The name that a slice is ordered by: v5e:16x16 → v5litepod-256.

    Raises ValueError for what is no topology.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", topology)
    if not found or found.group(1) not in _GENERATIONS:
        raise ValueError(
            f"a topology must read generation:chips, such as v5e:16x16, with a generation of "
            f"{', '.join(_GENERATIONS)}, got {topology!r}"
        )
    made = CHIPS[_GENERATIONS[found.group(1)]]
    count = math.prod(int(n) for n in found.group(2).split("x"))
    return f"{made.slices}-{count * made.cores}"
