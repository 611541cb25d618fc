"""Weak scaling, counted: what devices send each other in a step, and how long that takes at the
rates that makers state. Nothing here is measured.

A ring passes an array on in as many pieces as there are devices. To gather it, or to scatter its
sum, each device sends all pieces but one; to sum it up on all, both (Patarasu and Yuan 2009).
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from ssldiff_jax.train import chips
from ssldiff_jax.train import mesh as mesh_lib

Kind = Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all"]

ASSUMED_MFU = 0.4
"""Of computing alone, as the estimates of the configs assume."""

_TIMES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}
_STORED = 4
"""Bytes of a gradient, which is summed up in float32."""


def ring_bytes(kind: Kind, num_bytes: float, devices: int) -> float:
    """Bytes that each device of a ring sends, where the whole array has `num_bytes`."""
    return _TIMES[kind] * (devices - 1) / devices * num_bytes


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A collective of all devices, in groups.

    Attributes:
        kind: what they do.
        num_bytes: of the whole array: what is gathered, or what is summed up.
        devices: of a group.
        stride: from one member of a group to the next, in devices.
    """

    kind: Kind
    num_bytes: float
    devices: int
    stride: int

    @property
    def sent_bytes(self) -> float:
        """What each device sends, in one ring."""
        return ring_bytes(self.kind, self.num_bytes, self.devices)

    def seconds(self, network: Sequence[chips.Link]) -> float:
        """Of sending alone, network by network: what the inner one has summed up or not yet
        gathered is a part of the array, so that each outer one carries less."""
        total, num_bytes, left, apart = 0.0, self.num_bytes, self.devices, self.stride
        for link in network:
            members = _members(left, link, apart)
            total += ring_bytes(self.kind, num_bytes, members) / link.bandwidth
            num_bytes, left, apart = num_bytes / members, left // members, apart * members
        return total


def _members(left: int, link: chips.Link, apart: int) -> int:
    """How many of `left` devices, so far apart, a network joins: as many as divide them."""
    if link.devices is None:
        return left
    most = max(min(left, link.devices // apart), 1)
    return max(n for n in range(1, most + 1) if left % n == 0)


def of_step(params: Any, shardings: Any, gathered: int) -> tuple[Exchange, ...]:
    """What a training step exchanges for the sake of its parameters.

    Args:
        params: shapes of them, as the state holds them.
        shardings: where they lie on a mesh.
        gathered: bytes of a parameter while it is computed with.

    Losses and metrics send a few numbers more, and losses that look at the whole batch, or at the
    average of the parameters, what they look at.
    """
    sizes: collections.Counter[str | None] = collections.Counter()
    placed = jax.tree.leaves(shardings)
    for leaf, sharding in zip(jax.tree.leaves(params), placed, strict=True):
        shape = sharding.mesh.shape
        split = [axis for axis in sharding.spec if axis and shape[axis] > 1]
        gathered_over = [axis for axis in split if axis in mesh_lib.BATCH[0]]
        kept = math.prod(shape[axis] for axis in split if axis not in gathered_over)
        sizes[gathered_over[0] if gathered_over else None] += leaf.size // kept
    exchanges = [
        exchange
        for axis, size in sizes.items()
        for exchange in _of_axis(axis, size, placed[0].mesh.shape, gathered)
    ]
    return tuple(e for e in exchanges if e.devices > 1)


def _of_axis(
    axis: str | None, size: int, mesh: Mapping[str, int], gathered: int
) -> tuple[Exchange, ...]:
    """Of the parameters that are split over one axis, or over none."""
    inner, both = mesh["model"], mesh["data"] * mesh["fsdp"]
    if axis is None:
        return (Exchange("all-reduce", size * _STORED, both, inner),)
    strides = {"fsdp": inner, "data": inner * mesh["fsdp"]}
    (other,) = strides.keys() - {axis}
    own, count = strides[axis], mesh[axis]
    return (
        Exchange("all-gather", size * gathered, count, own),
        Exchange("reduce-scatter", size * _STORED, count, own),
        Exchange("all-reduce", size * _STORED / count, mesh[other], strides[other]),
    )


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A step on many devices, each with as many examples as on one.

    Attributes:
        devices: how many.
        sent_bytes: what each of them sends, in rings.
        send_seconds: at the rates of the network's maker, without latency.
        compute_seconds: of a device's own examples.
    """

    devices: int
    sent_bytes: float
    send_seconds: float
    compute_seconds: float

    @classmethod
    def of(
        cls,
        exchanges: Sequence[Exchange],
        network: Sequence[chips.Link],
        devices: int,
        compute_seconds: float,
    ) -> "Scaling":
        """Of what they exchange, one after the other."""
        sent = sum(e.sent_bytes for e in exchanges)
        seconds = sum(e.seconds(network) for e in exchanges)
        return cls(devices, sent, seconds, compute_seconds)

    @property
    def efficiency(self) -> float:
        """Examples a second and device, over those of one device: everything waits for sending."""
        return self.compute_seconds / (self.compute_seconds + self.send_seconds)

    @property
    def efficiency_overlapped(self) -> float:
        """The same where all is sent while devices compute: no order of work is better."""
        return self.compute_seconds / max(self.compute_seconds, self.send_seconds)
