"""What the decoder sees beyond the border of a canvas, of random models."""

import dataclasses

import numpy as np
import pytest

from ssldiff_jax.core import rng
from ssldiff_jax.generation import generator as generator_lib


def changed(generator, *, context, **of_windows):
    """With patches that were encoded with so many latents around them, and other windows."""
    config = generator.config
    px = context * config.downsample_factor
    crops = dataclasses.replace(config.data.crops, context_px=px)
    sample = dataclasses.replace(
        config.sample, windows=dataclasses.replace(config.sample.windows, **of_windows)
    )
    data = dataclasses.replace(config.data, crops=crops)
    config = dataclasses.replace(config, data=data, sample=sample)
    return generator_lib.Generator(config, generator.trained, generator.networks.mesh)


@pytest.mark.parametrize(
    ("context", "of_windows"),
    [(2, {"mode": "overlap", "stride": 8}), (1, {"max_offset": 0}), (0, {"max_offset": 0})],
)
def test_a_canvas_without_a_margin_is_mirrored_as_far_as_its_patches(
    random_generator, context, of_windows
):
    generator = changed(random_generator, context=context, **of_windows)
    grid = np.random.default_rng(3).standard_normal((2, 3, generator.embedding_dim), np.float32)
    planned = generator.plan_from_grid(grid, seed=7)
    networks, weights = generator.networks, generator.renderer.weights
    key = rng.stream(planned.seed, "sample/canvas")
    canvas = networks.sampler(
        weights.on_devices[0], planned.windows, planned.condition, key, planned.init
    )
    around = ((context, context), (context, context), (0, 0))
    whole, tiles = networks.decoder(weights.decoder, np.pad(canvas, around, "reflect"))
    px = context * generator.config.downsample_factor
    rows, cols = planned.size
    found = generator.render(planned)
    np.testing.assert_array_equal(found.image, whole[px : px + rows, px : px + cols])
    assert found.decoder_calls == tiles
