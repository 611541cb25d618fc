"""Images from cells of several tokens, of random models."""

import dataclasses

import numpy as np
import pytest
import random_models

from ssldiff_jax.core import patch_grid
from ssldiff_jax.generation import generator as generator_lib
from ssldiff_jax.generation import grid_edits
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.sampler import conditions

PER_SIDE = 2


@pytest.fixture(scope="module")
def model():
    return random_models.make(tokens_per_side=PER_SIDE)


@pytest.fixture(scope="module")
def image(model):
    px = model.patch_px
    return np.random.default_rng(2).integers(0, 256, (2 * px, 3 * px, 3), np.uint8)


def with_conditioning(model, kind):
    sample = dataclasses.replace(model.config.sample, conditioning=kind)
    return model.with_sample(sample)


def test_a_grid_has_the_tokens_of_each_cell(model, image):
    """Their mean is the embedding of an encoder that averages its patch tokens."""
    dim, grid = model.encoder.dim, model.embed(image)
    assert grid.shape == (2, 3, model.embedding_dim) == (2, 3, 4 * dim)
    one_each = grid.reshape(6, 4, dim).mean(axis=1)
    alone = model.encoder(patch_grid.cut_cells(image, model.patch_px))
    np.testing.assert_allclose(one_each, alone, atol=1e-5)
    np.testing.assert_allclose(
        grid_edits.one_embedding_each(grid, model).reshape(6, dim), alone, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["dense", "interpolated"])
def test_windows_on_cells_are_conditioned_on_the_grid(model, image, kind):
    way, window = with_conditioning(model, kind), model.config.window
    plan = way.planner.from_image(image)
    corners = window * np.stack(np.indices((2, 3)), -1).reshape(-1, 2)
    grid = model.embed(image).reshape(6, -1)
    np.testing.assert_allclose(plan.condition(corners), grid, atol=1e-4)


def test_dense_windows_have_the_tokens_of_what_lies_there(model, image):
    factor, px = model.config.downsample_factor, model.patch_px
    plan = with_conditioning(model, "dense").planner.from_image(image)
    patch = image[3 * factor : 3 * factor + px, 5 * factor : 5 * factor + px]
    found = plan.condition(np.array([[3, 5]]))
    np.testing.assert_allclose(found, model.condition_encoder(patch[None]), atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "interpolated"])
def test_images_are_generated_from_references(model, image, kind):
    way = with_conditioning(model, kind)
    generated = np.asarray(way.regenerate(image, seed=1))
    assert generated.shape == image.shape
    mirrored = np.asarray(way.regenerate(image[:, ::-1], seed=1))
    assert np.abs(generated.astype(int) - mirrored).max() > 0


def test_where_a_token_lies_matters(model, image):
    """The same four tokens in another order are another patch."""
    patches = model.variations(image[: model.patch_px, : model.patch_px], count=2, seed=3)
    tokens = model.embed(image)[0, 0].reshape(4, -1)
    again, turned = (
        model.sample_patches(np.repeat(cell.reshape(1, -1), 2, axis=0), seed=3)
        for cell in (tokens, tokens[::-1])
    )
    np.testing.assert_array_equal(again, patches)
    assert np.abs(turned.astype(int) - patches).max() > 0


def test_one_embedding_a_cell_is_not_enough(model):
    dim = model.encoder.dim
    coarse = np.ones((2, 3, dim), np.float32)
    line = (
        rf"must have the denoiser's 2 × 2 tokens \({4 * dim} numbers\), got one embedding each "
        rf"\({dim}\) .*--config.stages=tokens$"
    )
    for call in (model.generate, model.plan_from_grid, model.finer):
        with pytest.raises(folders.WorkdirError, match=line):
            call(coarse)
    whole = np.ones((2, 3, 4 * dim), np.float32)
    assert model.finer(whole) is whole


@pytest.fixture(scope="module")
def with_tokens(model):
    return holding(model, random_models.tokens_of(model, PER_SIDE))


def holding(model, tokens):
    """The generator with something that samples tokens."""
    trained = dataclasses.replace(model.trained, tokens=tokens)
    return generator_lib.Generator(model.config, trained, model.mesh)


def coarse_grid(model, rows=2, cols=3):
    shape = (rows, cols, model.encoder.dim)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_grids_of_a_prior_are_made_finer(with_tokens):
    """With the seed of the image; packed tokens pass as they are."""
    coarse = coarse_grid(with_tokens)
    finer = with_tokens.finer(coarse, seed=7)
    assert finer.shape == (2, 3, with_tokens.embedding_dim)
    assert with_tokens.finer(finer, seed=8) is finer
    expected = with_tokens.trained.tokens.sample(coarse, seed=7)
    np.testing.assert_array_equal(finer, expected)
    assert np.abs(with_tokens.finer(coarse, seed=8) - finer).max() > 0.1
    found = with_tokens.generate(coarse, seed=7).image
    np.testing.assert_array_equal(found, with_tokens.generate(finer, seed=7).image)


def test_tokens_wrap_where_the_image_does(with_tokens):
    sample = with_tokens.config.sample
    around = dataclasses.replace(sample.windows, border="wrap")
    way = with_tokens.with_sample(dataclasses.replace(sample, windows=around))
    coarse = coarse_grid(way)
    expected = way.trained.tokens.sample(coarse, seed=1, border="wrap")
    np.testing.assert_array_equal(way.finer(coarse, seed=1), expected)
    assert np.abs(with_tokens.finer(coarse, seed=1) - expected).max() > 0.1


def test_tokens_that_are_known_stay(with_tokens, image):
    known = with_tokens.embed(image)
    keep = np.array([[True, False, True], [True, True, False]])
    coarse = grid_edits.one_embedding_each(known, with_tokens)
    finer = with_tokens.finer(coarse, seed=3, known=known, keep_mask=keep)
    np.testing.assert_allclose(finer[keep], known[keep], atol=1e-3)
    assert np.abs(finer[~keep] - known[~keep]).mean() > 0.05
    # What is sampled goes with what is known.
    alone = with_tokens.finer(coarse, seed=3)
    assert np.abs(finer[~keep] - alone[~keep]).mean() > 1e-4


def test_what_samples_another_number_of_tokens_is_refused(model):
    other = holding(model, random_models.tokens_of(model, 4))
    line = r"must give the denoiser's 2 × 2 of 32, got 4 × 4 of 32; run .*--config.force=tokens"
    with pytest.raises(folders.WorkdirError, match=line):
        other.generate(coarse_grid(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grid: np.full_like(grid, np.nan), "must be finite, got 6 embeddings"),
        (lambda grid: grid[:0], "must hold an embedding, got shape"),
        (lambda grid: grid[0], r"must be of shape \(rows, columns, 128\)"),
    ],
)
def test_a_coarse_grid_that_is_none_is_refused(with_tokens, change, message):
    with pytest.raises(ValueError, match=message):
        with_tokens.generate(change(coarse_grid(with_tokens)))


@pytest.mark.parametrize("length", [1, 5])
def test_tokens_of_another_length_are_refused(model, length):
    dim = model.encoder.dim
    message = rf"\(rows, columns, {4 * dim}\) \(2 × 2 tokens of {dim}\), got \(2, 2, {length * 7}\)"
    with pytest.raises(ValueError, match=message):
        model.generate(np.ones((2, 2, length * 7), np.float32))
    with pytest.raises(ValueError, match=rf"\(N, {4 * dim}\) \(2 × 2 tokens of {dim}\), got"):
        model.sample_patches(np.ones((2, dim), np.float32))


def test_an_edit_takes_all_tokens_of_a_cell(model, image):
    grid = model.embed(image)
    edited, keep = grid_edits.edited(grid, np.ones((2, 3), bool), "0,1=1,2", model)
    np.testing.assert_array_equal(edited[0, 1], grid[1, 2])
    assert keep.all()
    edited[0, 1] = grid[0, 1]
    np.testing.assert_array_equal(edited, grid)


def test_cells_of_a_prior_need_an_encoder_that_averages(image):
    by_class = random_models.make(tokens_per_side=PER_SIDE, pool="class")
    grid = by_class.embed(image)
    assert grid.shape == (2, 3, by_class.embedding_dim)
    with pytest.raises(ValueError, match="mean of its tokens, got pool=class"):
        grid_edits.one_embedding_each(grid, by_class)


def test_readers_of_large_references_see_the_same_tokens(model, image):
    every = model.planner.embed_all(conditions.array_reader(image[:-1]), image[:-1].shape[:2])
    np.testing.assert_allclose(every[0], model.embed(image)[0], atol=1e-5)


def test_whether_grids_of_a_prior_can_be_made_finer_is_said_before_one_is_sampled(model):
    with pytest.raises(folders.WorkdirError, match="nothing that samples tokens"):
        model.require_finer()
    holding(model, random_models.tokens_of(model, PER_SIDE)).require_finer()
