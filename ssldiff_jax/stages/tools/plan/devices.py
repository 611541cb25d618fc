"""The devices that a run is planned for: those at hand, or others by their name."""

import dataclasses
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from ssldiff_jax.core import machine, memory
from ssldiff_jax.runs import checks
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import chips
from ssldiff_jax.train import mesh as mesh_lib

_CORES_EACH = 16


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices of one kind.

    Attributes:
        kind: as jax or its maker calls it.
        count: how many.
        platform: cpu, gpu or tpu.
        memory: of each, bytes.
        mesh: as the config splits them.
        working_mesh: of devices that are here, to plan large images with.
        cores: of their hosts.
        are_here: whether this machine has them.
        refused: why the config's mesh does not fit them; "" where it does.
    """

    kind: str
    count: int
    platform: str
    memory: int
    mesh: Mesh | AbstractMesh
    working_mesh: Mesh
    cores: int
    are_here: bool
    refused: str = ""

    @classmethod
    def of(cls, config: run_config.RunConfig) -> "Devices":
        """Those that `config.plan.devices` names, or all at hand."""
        alone = mesh_lib.MeshConfig(-1, 1, 1, ())
        if not config.plan.devices:
            return cls._here(config.mesh, alone)
        group = chips.Group.named(config.plan.devices)
        if jax.devices()[0].device_kind.startswith(group.kind) and group.count == len(
            jax.devices()
        ):
            return cls._here(config.mesh, alone)
        sizes, refused = _sizes(config.mesh, group.count)
        return cls(
            group.kind,
            group.count,
            group.platform,
            int(chips.CHIPS[group.kind].memory),
            AbstractMesh(sizes, mesh_lib.AXES),
            mesh_lib.make_mesh(alone, jax.devices()[:1]),
            _CORES_EACH * group.count,
            False,
            refused,
        )

    @classmethod
    def _here(cls, wanted: mesh_lib.MeshConfig, alone: mesh_lib.MeshConfig) -> "Devices":
        every = jax.devices()
        sizes, refused = _sizes(wanted, len(every))
        working = mesh_lib.make_mesh(alone)
        mesh = AbstractMesh(sizes, mesh_lib.AXES)
        kind = every[0].device_kind
        if every[0].platform == "cpu":
            kind = f"CPU ({memory.processor()}, {machine.cores()} cores)"
        return cls(
            kind, len(every), every[0].platform, checks.device_bytes(working), mesh, working,
            machine.cores(), True, refused,
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """For a stranger."""
        return {
            "kind": self.kind,
            "count": self.count,
            "memory": self.memory,
            "are_here": self.are_here,
            "mesh": dict(self.mesh.shape),
        }


def here() -> str:
    """The devices of this machine, in words."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"a CPU of {machine.cores()} cores and no accelerator"
    return f"{len(jax.devices())} × {first.device_kind}"


def _sizes(wanted: mesh_lib.MeshConfig, count: int) -> tuple[tuple[int, int, int], str]:
    """Devices along each axis, and why they cannot be so."""
    try:
        return mesh_lib.axis_sizes(wanted, count), ""
    except ValueError as error:
        return (count, 1, 1), str(error)
