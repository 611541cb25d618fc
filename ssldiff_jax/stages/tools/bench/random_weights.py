"""Weights of the tool `bench`, which looks at time and memory alone."""

from typing import Any

import jax
import numpy as np


def params(like: Any) -> Any:
    """Small random arrays of the shapes in a tree."""
    # Small, so that nothing overflows in bfloat16, and no zeros, which some devices multiply
    # faster.
    source = np.random.default_rng(0)
    normal = lambda leaf: 0.02 * source.standard_normal(leaf.shape, np.float32)
    return jax.tree.map(normal, like)
