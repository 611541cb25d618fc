"""Generators of several magnifications: images of any of them, by one set of compiled programs."""

import copy
import dataclasses

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_models

from ssldiff_jax.core import schema
from ssldiff_jax.generation import finest, two_scales
from ssldiff_jax.runs.config import tools
from ssldiff_jax.runs.workdir import folders

LEVELS = {"data__levels": (1.0, 2.0, 4.0), "data__records__scales": (2.0, 4.0)}
ZOOM = LEVELS | {
    "denoiser__conditioner__name": "transformer",
    "denoiser__conditioner__of": "finest",
    "denoiser__conditioner__depth": 1,
    "denoiser__conditioner__num_heads": 2,
    "denoiser__conditioner__mlp_width": 16,
    "denoiser__unet__conditioning": "cross_attention",
    "sample__conditioning": "interpolated",
}


@pytest.fixture(scope="module")
def beside():
    """Its level stands beside the timestep."""
    return random_models.make(**LEVELS)


@pytest.fixture(scope="module")
def zoom():
    """ZoomLDM's conditioner, on patches of the first level."""
    return random_models.make(**ZOOM)


def grid_of(model, rows=2, cols=3, dim=None, seed=0):
    shape = (rows, cols, dim or model.embedding_dim)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def dit():
    """The same of a transformer in the UNet's place."""
    return random_models.make(**LEVELS, denoiser__network="dit")


@pytest.mark.parametrize("name", ["beside", "dit"])
def test_levels_share_their_programs_and_differ_in_their_images(request, name):
    beside = request.getfixturevalue(name)
    grid, images = grid_of(beside), []
    first = beside.generate(grid, seed=3)
    patches = beside.sample_patches(grid[0], seed=3)
    with compilations.counted() as counts:
        for level in (1.0, 2.0, 4.0):
            model = beside.at_level(level)
            large = model.generate(grid, seed=3)
            assert (model.level, large.mpp) == (level, pytest.approx(0.5 * level))
            images.append(large.image)
            sampled = model.sample_patches(grid[0], seed=3)
            assert (level == 1) == np.array_equal(sampled, patches)
    assert counts.programs == 0, counts.names
    np.testing.assert_array_equal(images[0], first.image)
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])


def test_a_level_of_the_config_is_the_one_that_is_asked_for(beside):
    model = random_models.make(**LEVELS, sample__level=4.0)
    grid = grid_of(model)
    np.testing.assert_array_equal(
        model.generate(grid, seed=1).image, beside.at_level(4.0).generate(grid, seed=1).image
    )


def test_windows_of_a_level_are_told_its_number(beside, zoom):
    corners = np.array([[0, 0], [3, 5]])
    for number, level in enumerate((1.0, 2.0, 4.0), start=1):
        for model in (beside.at_level(level), zoom.at_level(level)):
            plan = model.plan_from_grid(grid_of(model))
            assert plan.condition(corners)[:, -1].tolist() == [number, number]
        cells = random_models.make(
            **LEVELS, data__crops__condition_on="cells", sample__conditioning="cells"
        ).at_level(level)
        condition = cells.plan_from_grid(grid_of(cells)).condition(corners)
        assert condition.shape == (2, 4 * (cells.embedding_dim + 2) + 1)
        assert condition[:, -1].tolist() == [number, number]


@pytest.mark.parametrize("conditioning", ["dense", "interpolated"])
def test_a_reference_is_embedded_at_its_level(conditioning):
    model = random_models.make(**LEVELS, sample__conditioning=conditioning).at_level(2.0)
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    large = model.regenerate(image)
    assert large.image.shape == image.shape
    assert large.mpp == pytest.approx(1.0)
    assert model.reading_data.patch_mpp == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "reads"), [("beside", 4), ("zoom", 1)])
def test_a_coarse_level_reads_a_reference_at_its_scale_or_at_the_first(request, name, reads):
    """Where cells are of the first level, both are read there."""
    model = request.getfixturevalue(name)
    coarse = two_scales.CoarseScale.of(tools.CoarseConfig("", "level=4"), model, model.mesh)
    assert (coarse.factor, coarse.reads) == (4, reads)
    assert coarse.model.mpp == pytest.approx(4 * model.mpp)
    assert coarse.size_of((128, 256)) == (32, 64)
    assert coarse.read_of((8, 16, 128, 256), "region") == tuple(
        px // reads for px in (8, 16, 128, 256)
    )
    with pytest.raises(schema.ConfigError, match=r"generate\.size must be multiples .*4, got"):
        coarse.size_of((128, 130))


@pytest.mark.parametrize("level", [3.0, 0.5, 8.0])
def test_a_level_that_is_not_learnt_is_refused_in_one_line(beside, level):
    with pytest.raises(schema.ConfigError) as caught:
        beside.at_level(level)
    assert str(caught.value) == (
        f"config.sample.level must be 0 or one of config.data.levels=(1, 2, 4), got {level:g}"
    )


def test_the_prior_is_of_the_first_level(beside):
    model, prior = copy.copy(beside), object()
    model.trained = dataclasses.replace(beside.trained, prior=prior)
    assert model.prior is prior
    with pytest.raises(folders.WorkdirError, match=r"grids of level 1, got config.sample.level=2"):
        _ = model.at_level(2.0).prior


def averaged(grid, ratio, side):
    """The mean over every square of `ratio` / `side` cells, one by one."""
    pool, (rows, cols) = ratio // side, grid.shape[:2]
    out = np.zeros((-(-rows // ratio) * side, -(-cols // ratio) * side, grid.shape[2]))
    for i, j in np.ndindex(out.shape[:2]):
        at = np.array([i, j]) * pool + np.indices((pool, pool)).reshape(2, -1).T
        # Beyond the grid lies its last cell again.
        out[i, j] = np.mean([grid[min(r, rows - 1), min(c, cols - 1)] for r, c in at], axis=0)
    return out


@pytest.mark.parametrize(
    ("ratio", "side", "shape", "size"),
    [
        (1, 1, (2, 3), (64, 96)),
        (2, 2, (4, 6), (64, 96)),
        (2, 2, (3, 5), (48, 80)),
        (4, 4, (4, 9), (32, 72)),
        (16, 8, (16, 40), (32, 80)),
        (32, 8, (33, 32), (33, 32)),
    ],
)
def test_a_grid_of_the_first_level_becomes_one_of_windows(ratio, side, shape, size):
    grid = np.random.default_rng(0).normal(size=(*shape, 5)).astype(np.float32)
    level = finest.Finest(ratio, side, 5, patch_px=32)
    assert level.takes(grid) == (ratio > 1)
    area = level.of_grid(grid, None, None)
    assert area.size == size
    expected = averaged(grid, ratio, side)
    rows, cols = (n // side for n in expected.shape[:2])
    assert area.grid.shape == (rows, cols, side * side * 5)
    for i, j in np.ndindex(rows, cols):
        tokens = area.grid[i, j].reshape(side, side, 5)
        block = expected[i * side : (i + 1) * side, j * side : (j + 1) * side]
        np.testing.assert_allclose(tokens, block, atol=1e-6)
    # A cell of the first level covers patch_px / ratio of this one's pixels.
    assert area.spans == pytest.approx((rows * 32, cols * 32))


def test_one_grid_serves_all_levels(zoom):
    grid = grid_of(zoom, 4, 8)
    sizes = {
        level: zoom.at_level(level).generate(grid).image.shape[:2] for level in (1.0, 2.0, 4.0)
    }
    px = zoom.patch_px
    assert sizes == {1.0: (4 * px, 8 * px), 2.0: (2 * px, 4 * px), 4.0: (px, 2 * px)}
    model = zoom.at_level(4.0)
    assert model.embedding_dim == 16 * zoom.embedding_dim
    packed = finest.Finest(4, 4, zoom.embedding_dim, px).of_grid(grid, None, None).grid
    np.testing.assert_array_equal(
        model.generate(packed, seed=2).image, model.generate(grid, seed=2).image
    )


def test_cells_that_fill_no_window_lie_beyond_the_image(zoom):
    model, px = zoom.at_level(4.0), zoom.patch_px
    grid = grid_of(zoom, 4, 6)
    plan = model.plan_from_grid(grid)
    assert plan.size == (px, px * 3 // 2)
    padded = np.pad(grid, ((0, 0), (0, 2), (0, 0)), "edge")
    whole = model.plan_from_grid(padded)
    corners = np.array([[0, 0], [0, 7]])
    np.testing.assert_allclose(plan.condition(corners), whole.condition(corners), atol=1e-5)


def test_a_window_on_cells_has_their_embeddings_as_they_are(zoom):
    model, grid = zoom.at_level(2.0), grid_of(zoom, 4, 4)
    window, dim = model.config.window, zoom.embedding_dim
    condition = model.plan_from_grid(grid).condition(np.array([[0, 0], [window, window]]))
    for row, (top, left) in zip(condition, ((0, 0), (2, 2)), strict=True):
        tokens = row[: 4 * dim].reshape(2, 2, dim)
        np.testing.assert_allclose(tokens, grid[top : top + 2, left : left + 2], atol=1e-5)
        # Level 4 has 16 of them: the rest is empty.
        np.testing.assert_array_equal(row[4 * dim : -1], 0.0)


def test_a_reference_of_the_first_level_is_generated_smaller(zoom):
    model = zoom.at_level(2.0)
    image = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    assert model.reading_data.patch_mpp == pytest.approx(0.5)
    plan = model.planner.from_image(image)
    assert plan.size == (64, 128)
    grid = model.embed(image)
    assert grid.shape == (2, 4, zoom.embedding_dim)
    corners = np.array([[0, 0], [1, 9]])
    expected = model.plan_from_grid(grid).condition(corners)
    np.testing.assert_allclose(plan.condition(corners), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("level", "shape", "message"),
    [
        (2.0, (2, 2, 7), r"embedding_grid must be of shape \(rows, columns, 128\) \(2 × 2 tokens "
         r"of 32\), got \(2, 2, 7\)"),
        (1.0, (2, 2, 128), r"must be of shape \(rows, columns, 32\), got"),
    ],
)  # fmt: skip
def test_grids_of_another_width_are_refused_in_one_line(zoom, level, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        zoom.at_level(level).generate(np.zeros(shape, np.float32))
    assert "\n" not in str(caught.value)


def test_the_transformer_takes_tokens_of_patches_of_any_level():
    """As models of one's own are trained: as many tokens of a patch at every level."""
    changes = ZOOM | {"denoiser__conditioner__of": "own", "sample__conditioning": "dense"}
    model = random_models.make(tokens_per_side=2, **changes)
    sizes = model.trained.denoiser.config
    assert (sizes.sides, sizes.condition_dim) == ((), 4 * 32 + 1)
    # Large enough that one token of 65 shows in pixels.
    model = model.with_params(jax.tree.map(lambda p: 6 * p, model.trained.params))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    patches = [m.variations(image, 1) for m in map(model.at_level, (1.0, 2.0))]
    assert not np.array_equal(*patches)
    grid = grid_of(model)
    assert model.at_level(2.0).generate(grid).image.shape == (128, 192, 3)


def test_a_students_guidance_leads_to_no_other_level():
    """The teacher's unconditional half is of the same level as the other."""
    model = random_models.make(visits=2, **LEVELS)
    config = model.trained.denoiser.config
    condition = jnp.asarray(config.with_level(np.ones((2, config.stored_dim), np.float32), 1))
    np.testing.assert_array_equal(config.null(condition)[:, -1], 2)
    assert model.trained.student.model.config.num_levels == 3
