"""What an image is before it is rendered, of random models."""

import dataclasses

import numpy as np
import pytest
import random_models

from ssldiff_jax.generation import plan
from ssldiff_jax.sampler import conditions
from ssldiff_jax.sampler import grid as grid_lib


@pytest.fixture
def image(random_generator):
    px = random_generator.patch_px
    return np.random.default_rng(2).integers(0, 256, (2 * px, 3 * px, 3), np.uint8)


def test_a_grid_spans_its_cells_by_default(random_generator):
    px, dim = random_generator.patch_px, random_generator.embedding_dim
    planned = random_generator.plan_from_grid(np.ones((2, 3, dim), np.float32), seed=5)
    assert (planned.size, planned.seed, planned.init) == ((2 * px, 3 * px), 5, None)
    factor = random_generator.config.downsample_factor
    assert planned.windows.canvas == (2 * px // factor, 3 * px // factor)


def test_the_grid_of_an_image_has_its_whole_cells(random_generator, image):
    grid = random_generator.embed(image[:-1])
    assert grid.shape == (1, 3, random_generator.embedding_dim)
    every = random_generator.planner.embed_all(conditions.array_reader(image[:-1]), (127, 192))
    assert every.shape[:2] == (2, 3)
    np.testing.assert_allclose(every[0], grid[0], atol=1e-5)


@pytest.mark.parametrize("blank", [False, True])
def test_a_mask_says_what_stays_of_an_image(random_generator, image, blank):
    """Blank, what does not stay is noise alone: its latents are zero."""
    mask = np.zeros(image.shape[:2], np.float32)
    mask[:, : random_generator.patch_px] = 1
    planned = random_generator.planner.from_image(
        image, init=plan.InitImage(image, mask, blank=blank)
    )
    keep, latents = planned.init.keep_mask, planned.init.latents
    assert keep.shape == latents.shape[:2] == planned.windows.canvas
    assert set(np.unique(keep)) == {0, 1}
    assert (latents[keep == 0] == 0).all() == blank
    assert (latents[keep == 1] != 0).any()


def test_an_image_or_mask_of_another_size_is_refused(random_generator, image):
    planner = random_generator.planner
    with pytest.raises(ValueError, match=r"init.image must be RGB .* \(128, 192, 3\)"):
        planner.from_image(image, init=plan.InitImage(image[:-1]))
    with pytest.raises(ValueError, match=r"init.keep_mask must be \(128, 192\) px"):
        planner.from_image(image, init=plan.InitImage(image, np.ones((128, 191), np.float32)))


def test_without_an_encoder_one_line_says_what_to_name(random_generator, image):
    planner = dataclasses.replace(random_generator.planner, encoder=None)
    with pytest.raises(ValueError, match=r"config\.encoder\.weights must name the encoder's file"):
        planner.embed(image)


def test_windows_of_a_grid_of_tokens_take_whole_tokens():
    """Those of the lattice under them, at every step, and so no mixture of two."""
    model = random_models.make(tokens_per_side=2)
    grid = np.random.default_rng(0).standard_normal((3, 4, model.embedding_dim), np.float32)
    planned = model.plan_from_grid(grid, seed=4)
    fine = grid_lib.unpacked(grid, 2)
    window, seen = planned.windows.window, set()
    for step in planned.windows.steps:
        corners = planned.windows.places(step.corners())
        found = planned.condition(corners).reshape(len(corners), 2, 2, -1)
        for (top, left), tokens in zip(corners * 2 // window, found, strict=True):
            rows, cols = (
                np.clip(at + np.arange(2), 0, size - 1)
                for at, size in zip((top, left), fine.shape[:2], strict=True)
            )
            np.testing.assert_allclose(tokens, fine[np.ix_(rows, cols)], rtol=1e-5, atol=1e-6)
            seen.add((top % 2, left % 2))
    assert len(seen) > 1
