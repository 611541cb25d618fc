"""What a model has to say to be trained, whatever trains it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ssldiff_jax.core import arrays

BatchSpec = Mapping[str, jax.ShapeDtypeStruct]
"""Shapes of a batch by name, along the first axis of any number of examples."""


class LossOutput(NamedTuple):
    """What a loss gives.

    Attributes:
        loss: a mean over the examples of the batch.
        metrics: means likewise, for the log.
        extra: the new state that no gradient reaches.
    """

    loss: jax.Array
    metrics: dict[str, jax.Array]
    extra: Any


class Task(Protocol):
    """A model and its objective."""

    def batch_spec(self) -> BatchSpec:
        """Shapes of a batch of one example."""

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """(params, extra) for batches of the shapes of `batch`; `extra` is state that no gradient
        reaches."""

    def loss(
        self,
        params: Any,
        batch: Mapping[str, Any],
        key: arrays.Key,
        *,
        ema_params: Any,
        extra: Any,
    ) -> LossOutput:
        """A mean over the examples of `batch`, computed in the dtype of `params`.

        The new `extra` is the same on all devices that share the batch: what it takes from examples
        it brings together by `core.collectives`.
        """

    def post_update(self, params: Any, extra: Any) -> Any:
        """The parameters after an update, with what no gradient can do to them; by default as they
        are."""
        return params


def batch_of(spec: BatchSpec, count: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of `count` examples."""
    return {
        name: jax.ShapeDtypeStruct((count, *one.shape[1:]), one.dtype) for name, one in spec.items()
    }


def images(px: int, num_bands: int = 3, dtype: Any = jnp.uint8) -> BatchSpec:
    """Square images of `px`, by default RGB, with their places in the stream."""
    return {
        "pixels": jax.ShapeDtypeStruct((1, px, px, num_bands), dtype),
        "index": jax.ShapeDtypeStruct((1,), jnp.int32),
    }


def shapes_as_zeros(tree: Any) -> Any:
    """A tree with zeros where it has shapes: they stand for trained weights while only shapes are
    looked at."""

    def zeros(leaf: Any) -> Any:
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.zeros(leaf.shape, leaf.dtype) if is_shape else leaf

    return jax.tree.map(zeros, tree)
