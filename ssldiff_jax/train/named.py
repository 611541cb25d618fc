"""A state with its parameters as named arrays: how it lies on disk, whatever it is held in."""

from typing import Any

import jax
import numpy as np

from ssldiff_jax.train import flat, hosts
from ssldiff_jax.train import step as step_lib


def state(stored: step_lib.TrainState) -> step_lib.TrainState:
    """With an array for each parameter, its average and its moments; vectors that this process sees
    all of become NumPy's, so that the devices hold nothing twice."""
    return jax.tree.map(arrays, stored, is_leaf=flat.is_flat)


def target(stored: step_lib.TrainState) -> step_lib.TrainState:
    """What a checkpoint is restored to: shapes of `state(stored)`, and where they shall lie."""
    # Not at the top: a machine that only computes need not have it.
    import orbax.checkpoint as ocp

    def of_node(node: Any) -> Any:
        if not flat.is_flat(node):
            return ocp.utils.to_shape_dtype_struct(node)
        if _is_here(node):
            # Orbax reads into NumPy arrays what is to become NumPy's.
            return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), node.layout.shapes)
        place = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
        return jax.tree.map(place, node.layout.shapes, node.layout.leaf_shardings(_mesh(node)))

    return jax.tree.map(of_node, stored, is_leaf=flat.is_flat)


def stored_like(stored: step_lib.TrainState, named: step_lib.TrainState) -> step_lib.TrainState:
    """What `state` gave, held as `stored` is and where it is."""

    def of_node(node: Any, arrays: Any) -> Any:
        return put_like(node, arrays) if flat.is_flat(node) else arrays

    return jax.tree.map(of_node, stored, named, is_leaf=flat.is_flat)


def put_like(stored: Any, arrays: Any) -> Any:
    """A tree of arrays, held as `stored` is and where it is."""
    where = jax.tree.map(lambda x: x.sharding, stored)
    if not flat.is_flat(stored):
        return jax.device_put(arrays, where)
    layout = stored.layout
    if _is_here(stored):
        return jax.device_put(layout.flatten(jax.tree.map(np.asarray, arrays)), where)
    placed = jax.device_put(arrays, layout.leaf_shardings(_mesh(stored)))
    return jax.jit(layout.flatten, out_shardings=where)(placed)


def on_this_host(stored: Any) -> Any:
    """The named arrays of parameters as every host can read them: alone on its devices, of several
    hosts in NumPy's arrays."""
    if not flat.is_flat(stored) or not _is_here(stored):
        return flat.leaves(hosts.to_host(stored))
    return jax.device_put(arrays(stored), stored.layout.leaf_shardings(_mesh(stored)))


def arrays(node: Any) -> Any:
    """The named arrays of parameters as they are held."""
    if not flat.is_flat(node):
        return node
    if _is_here(node):
        return flat.leaves(jax.tree.map(np.asarray, node))
    where = node.layout.leaf_shardings(_mesh(node))
    return jax.jit(flat.leaves, out_shardings=where)(node)


def _is_here(node: flat.Flat) -> bool:
    return all(x.is_fully_addressable for x in jax.tree.leaves(node))


def _mesh(node: flat.Flat) -> jax.sharding.Mesh:
    return jax.tree.leaves(node)[0].sharding.mesh
