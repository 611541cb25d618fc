"""The device mesh, and where every array lies on it."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "model")
BATCH = PartitionSpec(("data", "fsdp"))
_MOST_FSDP = 8


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be −1 and takes what is left, and `fsdp` may be 0:
    as many as divide the devices, up to 8.

    `rules` say which dimension of which parameters is split over which axis, the first match
    winning: `"unet/.*/kernel = -1:fsdp"` splits the last dimension of the UNet's kernels. What no
    rule names, or its axis does not divide, is replicated. The state (parameters, their average,
    the optimiser's moments) lies so; a step gathers parameters that are split over fsdp once,
    and computes on whole ones.
    """

    data: int
    fsdp: int
    model: int
    rules: tuple[str, ...]

    def __post_init__(self):
        for rule in self.rules:
            _parse(rule)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices, or over given ones.

    Raises ValueError when the axes do not multiply to their number.
    """
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(config, len(devices))
    require_one_process(devices, sizes)
    automatic = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=automatic, devices=devices)


def abstract_mesh(config: MeshConfig, count: int) -> AbstractMesh:
    """A mesh of as many devices that are nowhere: shardings over it can be made and looked at.

    Raises ValueError when the axes do not multiply to their number.
    """
    return AbstractMesh(axis_sizes(config, count), AXES)


def platform(mesh: Mesh) -> str:
    """What its devices are: cpu, gpu or tpu."""
    return mesh.devices.flat[0].platform


def axis_sizes(config: MeshConfig, count: int) -> tuple[int, int, int]:
    """Devices along each axis.

    Raises ValueError when they do not multiply to `count`.
    """
    fsdp = config.fsdp or _fitting(count, max(config.data, 1) * max(config.model, 1), config.data)
    sizes = [config.data, fsdp, config.model]
    product = int(np.prod([s for s in sizes if s > 0]))
    if sizes.count(-1) == 1 and count % product == 0:
        sizes[sizes.index(-1)] = count // product
    if int(np.prod(sizes)) != count or min(sizes) < 1:
        raise ValueError(
            f"mesh axes must multiply to the {count} devices, got data={config.data}, "
            f"fsdp={config.fsdp}, model={config.model}"
        )
    return tuple(sizes)


def require_one_process(devices: Sequence[jax.Device], sizes: tuple[int, int, int]) -> None:
    """Refuse devices along model that belong to several processes: each would bring a batch.

    Raises ValueError.
    """
    along = np.array([d.process_index for d in devices]).reshape(sizes)
    if (along != along[..., :1]).any():
        row = along.reshape(-1, sizes[2])
        worst = row[(row != row[:, :1]).any(axis=1)][0].tolist()
        raise ValueError(
            "devices along model must be of one process, which loads their batch, got "
            f"model={sizes[2]} over processes {worst}"
        )


def _fitting(count: int, taken: int, data: int) -> int:
    """Devices along fsdp, if it is left to us: all that are left where data is given, else as many
    as divide them, up to 8."""
    left = max(count // taken, 1)
    if data > 0:
        return left
    return max(n for n in range(1, _MOST_FSDP + 1) if left % n == 0)


def all_on_data(mesh: Mesh) -> Mesh:
    """The same devices, all along data: how windows are shared."""
    sizes = (mesh.size, 1, 1)
    return Mesh(mesh.devices.reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches split along their leading axis over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def require_divides(batch_size: int, mesh: Mesh, parts: int) -> None:
    """Refuse a batch whose parts the devices cannot share evenly.

    Raises ValueError.
    """
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (devices * parts):
        raise ValueError(
            f"train.batch_size must be a multiple of {devices * parts} (data × fsdp × "
            f"compute.accumulate), got {batch_size}"
        )


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def tree_shardings(tree: Any, mesh: Mesh | AbstractMesh, rules: tuple[str, ...]) -> Any:
    """A sharding for every leaf of a tree of shapes, by the rules.

    Raises ValueError for a rule that names nothing.
    """
    parsed, used = [_parse(rule) for rule in rules], set()

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        named = [rule for rule in parsed if re.search(rule[0], name)]
        used.update(pattern for pattern, *_ in named)
        for _, axis, mesh_axis in named:
            if -leaf.ndim <= axis < leaf.ndim:
                if leaf.shape[axis] % mesh.shape[mesh_axis]:
                    break
                spec = [None] * leaf.ndim
                spec[axis] = mesh_axis
                return NamedSharding(mesh, PartitionSpec(*spec))
        return replicated(mesh)

    shardings = jax.tree_util.tree_map_with_path(place, tree)
    for rule, (pattern, *_) in zip(rules, parsed, strict=True):
        if pattern not in used:
            raise ValueError(f"mesh.rules must name arrays of the model, got {rule!r}: no match")
    return shardings


def _parse(rule: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"(.+?)\s*=\s*(-?\d+):(\w+)", rule)
    if not match or match.group(3) not in AXES:
        raise ValueError(f"rules must read 'regex = dimension:axis', got {rule!r}")
    try:
        re.compile(match.group(1))
    except re.error as error:
        raise ValueError(f"rules must begin with a regex, got {rule!r}: {error}") from error
    return match.group(1), int(match.group(2)), match.group(3)


def to_global(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a batch → global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    put = lambda value: jax.make_array_from_process_local_data(sharding, np.asarray(value))
    return {name: put(value) for name, value in batch.items()}
