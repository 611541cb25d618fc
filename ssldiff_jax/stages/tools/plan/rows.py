"""What each step of a run counts, reads, writes, holds and computes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import estimates

Numbers = Mapping[str, estimates.Estimate]


@dataclasses.dataclass(frozen=True)
class Row:
    """Of one step.

    Attributes:
        counts: by what is counted.
        reads: bytes from disk, by what is read.
        writes: bytes that stay on disk, by what is written.
        host: bytes of this machine's memory.
        device: bytes of each device's memory.
        work: what takes time: FLOPs by what computes them, pixels that are cut or decoded.
    """

    counts: Numbers = dataclasses.field(default_factory=dict)
    reads: Numbers = dataclasses.field(default_factory=dict)
    writes: Numbers = dataclasses.field(default_factory=dict)
    host: Numbers = dataclasses.field(default_factory=dict)
    device: Numbers = dataclasses.field(default_factory=dict)
    work: Numbers = dataclasses.field(default_factory=dict)

    def on_hosts(self, count: int) -> "Row":
        """The same where the memory of `count` devices is the host's."""
        theirs = {name: number * count for name, number in self.device.items()}
        return dataclasses.replace(self, host={**self.host, **theirs}, device={})

    @property
    def flops(self) -> estimates.Estimate:
        """Of all that is computed."""
        return estimates.total(n for name, n in self.work.items() if name.startswith("flops"))


def exact(value: float) -> estimates.Estimate:
    """A number that is arithmetic."""
    return estimates.Estimate(value)


def guess(value: float, source: str, spread: float = 0.0) -> estimates.Estimate:
    """A number that may be off by a part `spread` of it; unknown where that is 0."""
    if not spread:
        return estimates.Estimate(value, source)
    return estimates.Estimate(value, source, value * (1 - spread), value * (1 + spread))


def as_json(numbers: Numbers) -> dict[str, Any]:
    """By name."""
    return {name: number.as_json() for name, number in numbers.items()}
