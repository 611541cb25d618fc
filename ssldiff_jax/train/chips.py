"""Accelerators, as their makers state them."""

import dataclasses
import math
import re
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Chip:
    """bfloat16 products a second, memory in bytes and how many it gives a second, and how a slice
    of them is called: by chips or by cores, of which a chip may have two."""

    flops: float
    memory: float
    bandwidth: float
    slices: str = ""
    cores: int = 1


CHIPS: dict[str, Chip] = {
    "TPU v4": Chip(275e12, 32 * 2**30, 1.228e12, "v4", 2),
    "TPU v5 lite": Chip(197e12, 16 * 2**30, 0.819e12, "v5litepod"),
    "TPU v5": Chip(459e12, 95 * 2**30, 2.765e12, "v5p", 2),
    "TPU v6 lite": Chip(918e12, 32 * 2**30, 1.64e12, "v6e"),
    "NVIDIA A100": Chip(312e12, 80e9, 2.039e12),
    "NVIDIA H100": Chip(989e12, 80e9, 3.35e12),
    "NVIDIA H200": Chip(989e12, 141e9, 4.8e12),
    "NVIDIA GeForce RTX 4090": Chip(165e12, 24e9, 1.008e12),
}
"""By how a device's kind begins."""


@dataclasses.dataclass(frozen=True)
class Link:
    """A network of devices: how many it joins (None: any number), and bytes a second that each of
    them sends, and receives at the same time, where all do."""

    devices: int | None
    bandwidth: float


# Of a TPU one axis of its torus, half of its links: Google's pages "TPU v5e" (400 GB/s both ways
# and all four links, 6.4 Tb/s to the data center for 256 chips) and "TPU v6e" (800, 25.6). Of a GPU
# NVIDIA's pages "H100 Tensor Core GPU", "H200 Tensor Core GPU" (900 GB/s both ways) and "DGX H100"
# (eight adapters of 400 Gb/s for eight GPUs).
_NVLINK = (Link(8, 450e9), Link(None, 50e9))
NETWORKS: dict[str, tuple[Link, ...]] = {
    "v5e": (Link(256, 100e9), Link(None, 3.125e9)),
    "v6e": (Link(256, 200e9), Link(None, 12.5e9)),
    "h100": _NVLINK,
    "h200": _NVLINK,
}
"""From the inner network to the outer one, by generation, as makers state them."""

_TPUS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
_GPUS = {"h100": "NVIDIA H100", "h200": "NVIDIA H200"}
_KINDS = {"a100": "NVIDIA A100", "rtx4090": "NVIDIA GeForce RTX 4090", **_GPUS, **_TPUS}


@dataclasses.dataclass(frozen=True)
class Slice:
    """Devices that work together.

    Attributes:
        platform: tpu or gpu.
        generation: v5e, h200 …
        shape: chips along each dimension; of GPUs their number.
    """

    platform: Literal["tpu", "gpu"]
    generation: str
    shape: tuple[int, ...]

    @classmethod
    def named(cls, topology: str) -> "Slice":
        """v5e:16x16, or h200:8.

        Raises ValueError for what is no topology.
        """
        match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
        generation = match.group(1) if match else ""
        shape = tuple(int(n) for n in match.group(2).split("x")) if match else ()
        if generation in _TPUS and len(shape) > 1:
            return cls("tpu", generation, shape)
        if generation in _GPUS and len(shape) == 1:
            return cls("gpu", generation, shape)
        raise ValueError(
            "a topology must read generation:chips, such as v5e:16x16 or h200:8, with a "
            f"generation of {', '.join((*_TPUS, *_GPUS))}, got {topology!r}"
        )

    @property
    def accelerator_type(self) -> str:
        """The name that a TPU slice is ordered by: v5e:16x16 is v5litepod-256."""
        generation = CHIPS[_TPUS[self.generation]]
        return f"{generation.slices}-{math.prod(self.shape) * generation.cores}"

    @property
    def gpu_target(self) -> str:
        """What XLA's GPU compiler has to know of a Hopper GPU that is not here (its text
        format)."""
        name = _GPUS[self.generation]
        sizes = {
            "threads_per_block_limit": 1024, "threads_per_warp": 32,
            "shared_memory_per_block": 49152, "shared_memory_per_core": 233472,
            "threads_per_core_limit": 2048, "core_count": 132, "fpus_per_core": 128,
            "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535, "memory_bandwidth": int(CHIPS[name].bandwidth),
            "l2_cache_size": 50 * 2**20, "clock_rate_ghz": 1.98,
            "device_memory_size": int(CHIPS[name].memory),
            "shared_memory_per_block_optin": 232448, "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
        }  # fmt: skip
        lines = [f"  {key}: {value}" for key, value in sizes.items()]
        lines.append("  cuda_compute_capability { major: 9 minor: 0 }")
        info = "\n".join(lines)
        return (
            f'gpu_device_info {{\n{info}\n}}\nplatform_name: "CUDA"\n'
            f'dnn_version_info {{ major: 9 }}\ndevice_description_str: "{name}"\n'
        )


def network(generation: str) -> tuple[Link, ...]:
    """What joins devices of a generation, and slices of them.

    Raises ValueError where it is not listed.
    """
    if generation not in NETWORKS:
        raise ValueError(
            f"config.compile.scaling needs a network of {', '.join(NETWORKS)}, got {generation}"
        )
    return NETWORKS[generation]


@dataclasses.dataclass(frozen=True)
class Group:
    """Devices of one kind, wherever they are."""

    kind: str
    count: int

    @classmethod
    def named(cls, name: str) -> "Group":
        """h100:1, v5e:16 …

        Raises ValueError for what is no such name.
        """
        match = re.fullmatch(r"(\w+):([1-9]\d*)", name)
        if not match or match.group(1) not in _KINDS:
            raise ValueError(
                "devices must read kind:count, such as h100:1, with a kind of "
                f"{', '.join(_KINDS)}, got {name!r}"
            )
        return cls(_KINDS[match.group(1)], int(match.group(2)))

    @property
    def platform(self) -> Literal["tpu", "gpu"]:
        """Which compiler they have."""
        return "tpu" if self.kind.startswith("TPU") else "gpu"


def chip(kind: str) -> Chip | None:
    """The chip of a kind of device, None where it is not known."""
    names = [name for name in CHIPS if kind.startswith(name)]
    return CHIPS[max(names, key=len)] if names else None
