"""What a generator compiles, of random models: one network for canvases of all sizes and for
patches."""

import dataclasses

import compilations
import jax
import numpy as np
import random_models

SIZES = ((2, 3), (4, 5))


def committed(generator):
    """With weights on their device, as a checkpoint is restored."""
    params = jax.device_put(generator.trained.params, jax.local_devices()[0])
    guidance = dataclasses.replace(generator.config.sample.guidance, scale=1.5, interval=(0.4, 1.0))
    sample = dataclasses.replace(generator.config.sample, guidance=guidance)
    return generator.with_sample(sample).with_params(params)


def test_images_of_all_sizes_and_patches_share_two_networks():
    """One for guided steps, one for plain ones; nothing of one size is compiled twice."""
    generator, source = committed(random_models.make()), np.random.default_rng(3)
    grids = [
        source.standard_normal((*cells, generator.embedding_dim), np.float32) for cells in SIZES
    ]
    with compilations.counted() as first:
        generator.generate(grids[0], seed=1)
    assert len(first.of("network")) == 2
    assert len(set(first.names)) == len(first.names)
    with compilations.counted() as others:
        generator.generate(grids[1], seed=2)
        generator.sample_patches(grids[1].reshape(-1, generator.embedding_dim), seed=3)
        # What comes again is not compiled again, but for the noise of other sizes.
        images = [generator.generate(grids[0], seed=seed).image for seed in (1, 4)]
    assert others.of("network") == []
    assert np.abs(images[0].astype(int) - images[1]).max() > 0
