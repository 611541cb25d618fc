"""Clusters of embeddings: found again where they are planted, whatever the lengths."""

import numpy as np
import pytest

from ssldiff_jax.evaluation.downstream import clusters

SIZES = (50, 30, 20)


def planted(generator):
    """Three directions of different frequency, vectors of any length."""
    kind = generator.permutation(np.repeat([0, 1, 2], SIZES))
    x = np.eye(4)[kind] + 0.1 * generator.normal(size=(100, 4))
    return x * generator.uniform(0.1, 10, size=(100, 1)), kind


@pytest.mark.parametrize("seed", range(3))
def test_planted_kinds_are_found_the_largest_first(seed):
    generator = np.random.default_rng(seed)
    (x, kind), (held_out, of_held_out) = planted(generator), planted(generator)
    found = clusters.Clusters.of(x, 3, seed=seed)
    np.testing.assert_array_equal(found.nearest(x), kind)
    np.testing.assert_array_equal(found.nearest(held_out), of_held_out)
    # A centre is the mean of its unit vectors.
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for k in range(3):
        np.testing.assert_allclose(found.centres[k], unit[kind == k].mean(axis=0), atol=1e-9)
    again = clusters.Clusters.of(x, 3, seed=seed)
    np.testing.assert_array_equal(again.centres, found.centres)


def test_more_clusters_than_embeddings_are_refused():
    with pytest.raises(ValueError, match="101 clusters need as many embeddings or more, got 100"):
        clusters.Clusters.of(planted(np.random.default_rng(0))[0], 101, seed=0)
