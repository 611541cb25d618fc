import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.data import crops
from ssldiff_jax.diffusion import cells, conditioning, unet

CORNERS = np.array([[0.0, 0.0], [-0.25, -0.75], [-1.0, -0.5], [-0.375, 0.0]])


def test_packed_conditions_come_back():
    embedding = np.random.default_rng(0).normal(size=(4, 4, 5)).astype(np.float32)
    place = cells.cell_offsets(CORNERS)
    found, at = cells.unpack(cells.pack(embedding, place), 4)
    np.testing.assert_array_equal(found, embedding)
    np.testing.assert_array_equal(at, place)


@pytest.mark.parametrize("side", [2, 8, 16])
def test_coverage_is_the_area_that_cells_share_with_pixels(side):
    """Against a count of points, 64 to a side of a window."""
    place = cells.cell_offsets(CORNERS)
    found = np.asarray(cells.coverage(place, side, side))
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    points = (np.arange(64) + 0.5) / 64
    for corner, area in zip(CORNERS, found, strict=True):
        row, col = ((points - c) // 1 for c in corner)
        cell = (2 * row[:, None] + col).astype(int)
        blocks = cell.reshape(side, 64 // side, side, 64 // side)
        expected = np.stack([(blocks == i).mean(axis=(1, 3)) for i in range(4)], -1)
        np.testing.assert_allclose(area, expected, atol=1e-6)


def test_null_conditions_are_covered_by_all_cells_alike():
    np.testing.assert_allclose(cells.coverage(np.zeros((1, 4, 2)), 4, 4), 0.25)


def test_coordinates_are_places_in_the_covering_cell():
    found = np.asarray(cells.coordinates(cells.cell_offsets(CORNERS[1:2]), 8, 8))[0]
    # The first cell ends after six of eight rows and two of eight columns.
    np.testing.assert_allclose(found[:, 0, 0] * 8, [-3, -1, 1, 3, 5, 7, -7, -5], atol=1e-5)
    np.testing.assert_allclose(found[0, :, 1] * 8, [5, 7, -7, -5, -3, -1, 1, 3], atol=1e-5)


def test_a_patch_and_its_cells_agree():
    """In every orientation, pixels of a patch are those of the cell that is said to cover them."""
    record = np.zeros((40, 40, 3), np.uint8)
    record[..., 0], record[..., 1] = np.arange(40)[:, None], np.arange(40)
    config = crops.CropConfig(16, 200, 4, True, "cells")
    table, seen = crops.CropTable(3, 40, config, 0), []
    for i in range(200):
        crop = table[i]
        patch = crop.cut(record, 24)[4:20, 4:20]
        found, corner = crop.cells(record, config)
        area = np.asarray(cells.coverage(cells.cell_offsets(corner[None]), 16, 16))[0]
        top, left = np.round(-corner * 16).astype(int)
        block = found.reshape(2, 2, 16, 16, 3).swapaxes(1, 2).reshape(32, 32, 3)
        np.testing.assert_array_equal(patch, block[top : top + 16, left : left + 16])
        row, col = (np.arange(16) + top) // 16, (np.arange(16) + left) // 16
        np.testing.assert_array_equal(area.argmax(axis=-1), 2 * row[:, None] + col)
        seen.append((crop.orientation, top, left))
    orientation, top, left = np.transpose(seen)
    assert set(orientation) == set(range(8))
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 16, 0, 16)


@pytest.mark.parametrize("kind", ["scale_shift", "cross_attention"])
def test_a_denoiser_of_cells_is_led_by_each_in_its_place(kind):
    """What a cell says matters where it lies more than elsewhere, and nothing is led by a cell
    that the window does not touch."""
    sizes = unet.UNetConfig(2, 16, (1, 2), 1, (), 2, 16, kind)
    config = conditioning.DenoiserConfig(sizes, 6, "root_dim", num_cells=4)
    model = conditioning.Denoiser(config)
    rng = np.random.default_rng(0)
    x_t = rng.normal(size=(1, 16, 16, 2)).astype(np.float32)
    embedding = rng.normal(size=(1, 4, 6)).astype(np.float32)
    at = lambda corner: cells.cell_offsets(np.array([corner]))
    t = jnp.array([500])
    condition = cells.pack(embedding, at([-0.5, 0.0]))
    assert condition.shape == (1, config.condition_dim)
    params = jax.jit(model.init)(jax.random.key(0), x_t, t, condition)
    keys = iter(jax.random.split(jax.random.key(1), 500))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    apply = jax.jit(model.apply)
    base = apply(params, x_t, t, condition)
    changed = embedding.copy()
    changed[0, 0] += 1
    moved = np.abs(apply(params, x_t, t, cells.pack(changed, at([-0.5, 0.0]))) - base)[0]
    assert moved.max() > 1e-3
    if kind == "scale_shift":
        assert moved[:6].mean() > 1.3 * moved[10:].mean()
        untouched = embedding.copy()
        untouched[0, 1] += 1
        found = apply(params, x_t, t, cells.pack(untouched, at([-0.5, 0.0])))
        np.testing.assert_allclose(found, base, atol=1e-5)


def test_a_window_alone_is_one_cell():
    embedding = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    found, place = cells.unpack(cells.single_cell(embedding), 4)
    np.testing.assert_array_equal(found, np.repeat(embedding[:, None], 4, axis=1))
    area = np.asarray(cells.coverage(place, 8, 8))
    np.testing.assert_allclose(area[..., 0], 1)
