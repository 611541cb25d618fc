"""Parameters side by side in a few long vectors.

An optimiser such as AdamW does the same to every element. Done array by array, on hundreds of them,
it is more than half of what XLA compiles of a step and of the kernels that a GPU starts, and as
many messages between devices as there are arrays. Done on vectors it is a handful of each.
TPUs are better off with arrays (`OptimizerConfig.storage`).

A vector is split over devices as its arrays are: the part of a device is what it holds of every
array, one after the other. So no element moves between devices when arrays become a vector or a
vector arrays. On disk, and to a model, parameters are arrays with names.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from ssldiff_jax.core import arrays, blocks, layers

Vector = Shaped[arrays.AnyArray, "n"]

TILE = 1024
"""Elements: what a device of several holds of a vector ends with zeros up to a multiple of these. A
TPU scatters the sum of whole tiles; of others it sends all to all."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array of the model: name, shape, dtype, and the mesh axis of each dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    spec: tuple[str | None, ...]

    @property
    def split(self) -> tuple[str, int] | None:
        """(mesh axis, dimension), where one is split."""
        split = [(axis, d) for d, axis in enumerate(self.spec) if axis]
        return split[0] if split else None

    @property
    def is_alone(self) -> bool:
        """Whether it stays an array: the compiler shares the work on what is split over model, and
        codebooks have a dtype of their own in the computation."""
        return bool(self.split and self.split[0] == "model") or layers.is_exact(self.name)


@dataclasses.dataclass(frozen=True)
class Group:
    """Arrays that one vector holds, and over which mesh axis of how many devices it is split; or
    one array, `alone` and as it is."""

    leaves: tuple[Leaf, ...]
    axis: str | None
    parts: int
    alone: bool

    @property
    def spec(self) -> PartitionSpec:
        """How what it holds lies on the mesh."""
        return PartitionSpec(*(self.leaves[0].spec if self.alone else (self.axis,)))

    def join(self, leaves: Sequence[arrays.AnyArray]) -> arrays.AnyArray:
        """Arrays → the vector."""
        if self.alone:
            return leaves[0]
        pairs = zip(leaves, self.leaves, strict=True)
        rows = [_to_rows(x, leaf, self.parts) for x, leaf in pairs]
        join = np if isinstance(rows[0], np.ndarray) else jnp
        if self._padding:
            rows.append(join.zeros((self.parts, self._padding), rows[0].dtype))
        return join.concatenate(rows, axis=1).reshape(-1)

    def split(self, vector: arrays.AnyArray) -> list[arrays.AnyArray]:
        """The vector → arrays."""
        if self.alone:
            return [vector]
        rows = vector.reshape(self.parts, -1)
        ends = np.cumsum(self._lengths).tolist()
        return [
            _from_rows(rows[:, end - length : end], leaf, self.parts)
            for leaf, length, end in zip(self.leaves, self._lengths, ends, strict=True)
        ]

    def spread(self, numbers: Sequence[float]) -> arrays.AnyArray | float:
        """One number for each array → the number, where all are the same, or a vector with that of
        each element's array."""
        if len(set(numbers)) == 1:
            return numbers[0]
        pairs = zip((*self._lengths, self._padding), (*numbers, 0.0), strict=True)
        row = jnp.concatenate([jnp.full(n, x, jnp.float32) for n, x in pairs])
        return jnp.tile(row, self.parts)

    @property
    def _lengths(self) -> list[int]:
        """What a device holds of each array, in elements."""
        return [math.prod(leaf.shape) // self.parts for leaf in self.leaves]

    @property
    def _padding(self) -> int:
        return -sum(self._lengths) % TILE if self.parts > 1 else 0


def _to_rows(x: arrays.AnyArray, leaf: Leaf, parts: int) -> Shaped[arrays.AnyArray, "parts n"]:
    """What each device holds of an array, in a row."""
    if parts == 1:
        return x.reshape(1, -1)
    d = leaf.split[1]
    pieces = x.reshape(*x.shape[:d], parts, -1, *x.shape[d + 1 :])
    order = (d, *(i for i in range(pieces.ndim) if i != d))
    return pieces.transpose(order).reshape(parts, -1)


def _from_rows(rows: Shaped[arrays.AnyArray, "parts n"], leaf: Leaf, parts: int) -> arrays.AnyArray:
    """The inverse of `_to_rows`."""
    if parts == 1:
        return rows.reshape(leaf.shape)
    d = leaf.split[1]
    held = (*leaf.shape[:d], leaf.shape[d] // parts, *leaf.shape[d + 1 :])
    order = (*range(1, d + 1), 0, *range(d + 1, len(held) + 1))
    return rows.reshape(parts, *held).transpose(order).reshape(leaf.shape)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which array of a tree lies in which vector.

    Attributes:
        treedef: the structure of the tree.
        groups: by the name of what they hold, with the places of their arrays among the leaves of
            the tree.
    """

    treedef: Any
    groups: tuple[tuple[str, Group, tuple[int, ...]], ...]

    @classmethod
    def of(cls, params: Any, shardings: Any) -> "Layout":
        """For a tree of shapes and one of their shardings over a mesh."""
        named, treedef = jax.tree_util.tree_flatten_with_path(params)
        groups: dict[str, tuple[Group, tuple[int, ...]]] = {}
        for i, ((path, x), sharding) in enumerate(
            zip(named, treedef.flatten_up_to(shardings), strict=True)
        ):
            leaf = _leaf(jax.tree_util.keystr(path, simple=True, separator="/"), x, sharding)
            axis = leaf.split[0] if leaf.split else None
            # What decays and what does not are apart: most factors are then one number.
            is_matrix = blocks.rank(path, len(leaf.shape)) > 1
            kind = f"{leaf.dtype}/{'matrices' if is_matrix else 'vectors'}/{axis or ''}"
            name = leaf.name if leaf.is_alone else kind
            before, places = groups.get(name, (None, ()))
            leaves = (*before.leaves, leaf) if before else (leaf,)
            parts = sharding.mesh.shape[axis] if axis else 1
            groups[name] = Group(leaves, axis, parts, leaf.is_alone), (*places, i)
        return cls(treedef, tuple((name, *group) for name, group in groups.items()))

    def flatten(self, tree: Any) -> "Flat":
        """Arrays → vectors."""
        return self._of_groups(tree, Group.join)

    def spread(self, numbers: Any) -> "Flat":
        """A tree with a number for each array → numbers, or vectors of them, that vectors may be
        multiplied by."""
        return self._of_groups(numbers, Group.spread)

    def _of_groups(self, tree: Any, function: Callable[[Group, list], Any]) -> "Flat":
        leaves = self.treedef.flatten_up_to(tree)
        vectors = {
            name: function(group, [leaves[i] for i in places])
            for name, group, places in self.groups
        }
        return Flat(vectors, self)

    def unflatten(self, vectors: dict[str, Any]) -> Any:
        """Vectors → the tree of arrays."""
        split = {i: x for name, group, places in self.groups
                 for i, x in zip(places, group.split(vectors[name]), strict=True)}  # fmt: skip
        return self.treedef.unflatten([split[i] for i in range(len(split))])

    @functools.cached_property
    def shapes(self) -> Any:
        """The tree with shapes for arrays."""
        of_place = {i: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                    for _, group, places in self.groups
                    for i, leaf in zip(places, group.leaves, strict=True)}  # fmt: skip
        return self.treedef.unflatten([of_place[i] for i in range(len(of_place))])

    def shardings(self, mesh: Mesh | AbstractMesh) -> "Flat":
        """Where each vector lies."""
        return Flat({n: NamedSharding(mesh, group.spec) for n, group, _ in self.groups}, self)

    def leaf_shardings(self, mesh: Mesh) -> Any:
        """Where each array lies, as a tree."""
        of_place = {i: NamedSharding(mesh, PartitionSpec(*leaf.spec))
                    for _, group, places in self.groups
                    for i, leaf in zip(places, group.leaves, strict=True)}  # fmt: skip
        return self.treedef.unflatten([of_place[i] for i in range(len(of_place))])


def _leaf(name: str, x: Any, sharding: NamedSharding) -> Leaf:
    # An axis of one device splits nothing.
    axes = (axis if axis and sharding.mesh.shape[axis] > 1 else None for axis in sharding.spec)
    return Leaf(name, tuple(x.shape), np.dtype(x.dtype).name, tuple(axes))


class Flat(flax.struct.PyTreeNode):
    """A tree of arrays as vectors, by what they hold."""

    vectors: dict[str, Any]
    layout: Layout = flax.struct.field(pytree_node=False)


def leaves(stored: Any) -> Any:
    """The tree of arrays that is stored: of vectors, or as it is."""
    return stored.layout.unflatten(stored.vectors) if isinstance(stored, Flat) else stored


def shapes(stored: Any) -> Any:
    """`leaves`, with shapes for arrays where it is stored as vectors."""
    return stored.layout.shapes if isinstance(stored, Flat) else stored


def like(stored: Any, tree: Any) -> Any:
    """A tree of arrays as another one is stored."""
    return stored.layout.flatten(tree) if isinstance(stored, Flat) else tree


def spread(stored: Any, numbers: Any) -> Any:
    """A tree with a number for each array, to multiply what is stored by."""
    return stored.layout.spread(numbers) if isinstance(stored, Flat) else numbers


def map_arrays(stored: Any, function: Callable[[Any], Any]) -> Any:
    """What is stored after a function of the tree of arrays; what it gives on as it was stays where
    it is."""
    if not isinstance(stored, Flat):
        return function(stored)
    before = leaves(stored)
    after = function(before)
    if after is before:
        return stored
    layout, new = stored.layout, stored.layout.treedef.flatten_up_to(after)
    old = layout.treedef.flatten_up_to(before)
    changed = {
        name: group.join([new[i] for i in places])
        for name, group, places in layout.groups
        if any(new[i] is not old[i] for i in places)
    }
    return stored.replace(vectors=stored.vectors | changed)


def is_flat(x: Any) -> bool:
    """Whether it is a tree of arrays as vectors."""
    return isinstance(x, Flat)
