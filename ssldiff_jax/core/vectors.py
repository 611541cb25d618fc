"""Vectors along one axis: to unit length, and how far apart they are. NumPy stays NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays

# Of a length, squared: far below any vector that says something. Under the root, so that the
# gradient at a zero vector is 0 and not 0/0.
_LEAST_SQUARE = 1e-24


def unit(x: Float[arrays.AnyArray, "..."], axis: int = -1) -> Float[arrays.AnyArray, "..."]:
    """x / |x| along an axis; a zero vector stays zero."""
    xp = jnp if isinstance(x, jax.Array) else np
    return x / xp.sqrt(xp.maximum(xp.sum(x * x, axis=axis, keepdims=True), _LEAST_SQUARE))


def squared_distances(
    a: Float[np.ndarray, "N D"],
    b: Float[np.ndarray, "M D"],
    *,
    square_b: Float[np.ndarray, "M"] | None = None,
) -> Float[np.ndarray, "N M"]:
    """|a − b|² of all pairs, 0 or more, as |a|² + |b|² − 2·a·b: one matrix product.

    Its errors are those of |a|² + |b|²: centre the sets before, or have them in float64. Who calls
    it again and again with one `b` gives |b|² as `square_b`.
    """
    square = a @ b.T
    # In place: N × M numbers are held once.
    square *= -2
    square += np.sum(a**2, axis=1)[:, None]
    square += np.sum(b**2, axis=1) if square_b is None else square_b
    return np.maximum(square, 0, out=square)
