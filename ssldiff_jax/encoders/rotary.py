"""Rotary positions of patches (Su et al. 2021), by both axes, as DINOv3 has them (2025)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, attention

_BASE = 100.0  # the longest wavelength over the shortest


def angles(rows: int, cols: int, head_dim: int) -> Float[np.ndarray, "L half"]:
    """Of patches, row by row: those of the row, then those of the column.

    Centres of patches lie in [−1, 1] whatever their number, so another image size needs no other
    positions; the shortest wavelength is 1, half an image.
    """
    frequencies = _BASE ** -np.arange(0, 1, 4 / head_dim)
    centres = [2 * (np.arange(count) + 0.5) / count - 1 for count in (rows, cols)]
    places = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2)
    turns = 2 * np.pi * places[:, :, None] * frequencies
    return turns.reshape(rows * cols, head_dim // 2).astype(np.float32)


def rotated(
    x: Float[arrays.AnyArray, "B N D"], angles: Float[np.ndarray, "L half"], num_heads: int
) -> Float[arrays.AnyArray, "B N D"]:
    """Queries or keys, whose heads lie side by side, the last L of them turned by where they are:
    each channel with the one half a head after it. What comes before lies nowhere and stays."""
    heads = attention.split_heads(x, num_heads)
    prefix = x.shape[1] - len(angles)
    a, b = jnp.split(heads[:, prefix:], 2, axis=-1)
    cos, sin = (part[:, None].astype(x.dtype) for part in (np.cos(angles), np.sin(angles)))
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return jnp.concatenate([heads[:, :prefix], turned], axis=1).reshape(x.shape)
