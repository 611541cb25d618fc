import numpy as np
import pytest
import small_configs

from ssldiff_jax.encoders import rotary, vit

ROWS, COLS, HEADS, WIDTH = 4, 6, 3, 24


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def turned(vector):
    """The same vector at every patch of a grid, turned: (rows, cols, heads, width of a head)."""
    tokens = np.broadcast_to(vector, (1, ROWS * COLS, WIDTH))
    angles = rotary.angles(ROWS, COLS, WIDTH // HEADS)
    return np.asarray(rotary.rotated(tokens, angles, HEADS)).reshape(ROWS, COLS, HEADS, -1)


def test_turning_keeps_the_length_of_every_head():
    vector = normal(0, WIDTH)
    found = np.linalg.norm(turned(vector), axis=-1)
    expected = np.linalg.norm(vector.reshape(HEADS, -1), axis=1)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, 2), (2, -3), (-1, 4)])
def test_queries_see_how_far_keys_are_and_not_where(down, right):
    query, key = turned(normal(1, WIDTH)), turned(normal(2, WIDTH))
    rows = [r for r in range(ROWS) if 0 <= r + down < ROWS]
    cols = [c for c in range(COLS) if 0 <= c + right < COLS]
    products = [
        np.einsum("hd,hd->h", query[r, c], key[r + down, c + right]) for r in rows for c in cols
    ]
    np.testing.assert_allclose(
        products, np.broadcast_to(products[0], (len(products), HEADS)), atol=1e-4
    )


def test_distances_differ_along_rows_and_columns():
    query, key = turned(normal(1, WIDTH)), turned(normal(2, WIDTH))
    products = np.einsum("hd,rchd->rch", query[0, 0], key)
    pairs = products.reshape(-1, HEADS)[:, 0]
    assert len(np.unique(np.round(pairs, 4))) == ROWS * COLS


def test_what_comes_before_patches_lies_nowhere():
    tokens = normal(3, 2, 5 + ROWS * COLS, WIDTH)
    found = rotary.rotated(tokens, rotary.angles(ROWS, COLS, WIDTH // HEADS), HEADS)
    np.testing.assert_array_equal(found[:, :5], tokens[:, :5])
    assert np.abs(found[:, 5:] - tokens[:, 5:]).max() > 0.1


def test_centres_are_those_of_patches_whatever_the_size():
    """The middle of an odd grid is not turned at all."""
    angles = rotary.angles(3, 5, 8).reshape(3, 5, 2, 2)
    np.testing.assert_allclose(angles[1, 2], 0, atol=1e-7)
    # Half an image is a whole turn of the quickest channel; a patch of three is 2/3 of a turn.
    np.testing.assert_allclose(
        angles[2, 2, 0], [2 * np.pi * 2 / 3, 2 * np.pi * 2 / 3 / 10], rtol=1e-5
    )


def test_a_vit_with_rotary_positions_has_no_others():
    variant = small_configs.section("encoder.model.vit.variant", positions="rotary")
    sizes = vit.ViTConfig(16, 4, 16, 1, 2, "class", variant)
    assert sizes.num_positions == 0
