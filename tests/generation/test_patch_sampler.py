"""Patches that are sampled alone, of random models."""

import dataclasses

import jax
import numpy as np
import pytest


@pytest.fixture(scope="module")
def embedding(random_generator):
    dim = random_generator.embedding_dim
    return np.random.default_rng(1).standard_normal((7, dim), np.float32)


def test_a_patch_is_the_same_however_many_are_sampled(random_generator, embedding):
    px = random_generator.patch_px
    patches = random_generator.sample_patches(embedding, seed=3)
    assert patches.shape == (7, px, px, 3)
    few = random_generator.sample_patches(embedding[:2], seed=3)
    np.testing.assert_array_equal(few, patches[:2])
    twice = random_generator.sample_patches(embedding[[0, 0]], seed=3)
    assert not np.array_equal(*twice)


def test_batches_do_not_change_a_patch(random_generator, embedding):
    """Two and a half batches of three: noise is numbered by the patch, not by its batch."""
    sample = dataclasses.replace(random_generator.config.sample, window_batch=3)
    in_threes = random_generator.with_sample(sample)
    np.testing.assert_allclose(
        in_threes.sample_patches(embedding, seed=3).astype(int),
        random_generator.sample_patches(embedding, seed=3),
        atol=1,
    )


def test_other_weights_are_another_generator_of_the_same_programs(random_generator, embedding):
    params = random_generator.trained.params
    other = random_generator.with_params(jax.tree.map(lambda p: 2 * p, params))
    patches = random_generator.sample_patches(embedding, seed=3)
    assert not np.array_equal(other.sample_patches(embedding, seed=3), patches)
    assert other.networks is random_generator.networks
    np.testing.assert_array_equal(random_generator.sample_patches(embedding, seed=3), patches)
