"""The device mesh, and where every array lies on it."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "model")
BATCH = PartitionSpec(("data", "fsdp"))


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be −1 and takes what is left.

    `rules` say which dimension of which parameters is split over which axis, the first match
    winning: `"unet/.*/kernel = -1:fsdp"` splits the last dimension of the UNet's kernels. What no
    rule names, or its axis does not divide, is replicated.
    """

    data: int
    fsdp: int
    model: int
    rules: tuple[str, ...]

    def __post_init__(self):
        for rule in self.rules:
            _parse(rule)


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh over all devices.

    Raises ValueError when the axes do not multiply to their number.
    """
    sizes = [config.data, config.fsdp, config.model]
    count = jax.device_count()
    known = int(np.prod([s for s in sizes if s > 0]))
    if sizes.count(-1) == 1 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if int(np.prod(sizes)) != count or min(sizes) < 1:
        raise ValueError(
            f"mesh axes must multiply to the {count} devices, got data={config.data}, "
            f"fsdp={config.fsdp}, model={config.model}"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches split along their leading axis over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def tree_shardings(tree: Any, mesh: Mesh, rules: tuple[str, ...]) -> Any:
    """A sharding for every leaf of a tree of shapes, by the rules."""
    parsed = [_parse(rule) for rule in rules]

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
        for pattern, axis, mesh_axis in parsed:
            if re.search(pattern, name) and -leaf.ndim <= axis < leaf.ndim:
                if leaf.shape[axis] % mesh.shape[mesh_axis]:
                    break
                spec = [None] * leaf.ndim
                spec[axis] = mesh_axis
                return NamedSharding(mesh, PartitionSpec(*spec))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)


def _parse(rule: str) -> tuple[str, int, str]:
    found = re.fullmatch(r"(.+?)\s*=\s*(-?\d+):(\w+)", rule)
    if not found or found.group(3) not in AXES:
        raise ValueError(f"rules must read 'regex = dimension:axis', got {rule!r}")
    return found.group(1), int(found.group(2)), found.group(3)


def to_global(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a batch → global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    put = lambda value: jax.make_array_from_process_local_data(sharding, np.asarray(value))
    return {name: put(value) for name, value in batch.items()}
