"""Embeddings of a slide laid where their patches lie."""

import h5py
import numpy as np
import pytest

from ssldiff_jax.data.precomputed import embedding_grids, files


def write(path, corners, side=0, embedding=None, **attributes):
    count = len(corners)
    with h5py.File(path, "w") as file:
        file["features"] = np.eye(count, 5) if embedding is None else embedding
        file["coords"] = np.array(corners)
        if side:
            file["coords"].attrs["patch_size_level0"] = side
        for key, value in attributes.items():
            file["coords"].attrs[key] = value
    return path


def test_patches_lie_where_their_corners_say(tmp_path):
    # (x, y), in any order, from anywhere.
    corners = [[512 + 256, 256], [512, 0], [512 + 256, 0], [512, 256]]
    grid = embedding_grids.of_file(write(tmp_path / "a.h5", corners, 256))
    eye = np.eye(4, 5)
    np.testing.assert_array_equal(grid, [[eye[1], eye[2]], [eye[3], eye[0]]])
    assert grid.dtype == np.float32
    # Without the side of a patch: what they are apart.
    again = embedding_grids.of_file(write(tmp_path / "b.h5", corners))
    np.testing.assert_array_equal(again, grid)


def test_corners_are_rounded_at_another_scale(tmp_path):
    """Patches of 256 px at 0.5 µm/px in a slide of 0.2527: 506.5 px of level 0."""
    side = 506.53
    corners = [[round(x * side), round(y * side)] for y in range(30) for x in range(40)]
    path = write(
        tmp_path / "a.h5", corners, round(side), np.random.default_rng(0).normal(size=(1200, 5))
    )
    with pytest.raises(files.WeightsError, match="side by side, 507 apart"):
        embedding_grids.of_file(path)
    corners = [[507 * x + x % 2, 507 * y] for y in range(30) for x in range(40)]
    assert embedding_grids.of_file(write(tmp_path / "b.h5", corners, 507)).shape == (30, 40, 5)


def test_cells_without_a_patch_take_the_nearest(tmp_path, caplog):
    corners = [[0, 0], [768, 0], [768, 512]]
    grid = embedding_grids.of_file(write(tmp_path / "a.h5", corners, 256))
    assert grid.shape == (3, 4, 5)
    owner = grid.argmax(axis=-1)
    assert owner[0].tolist() == [0, 0, 1, 1]
    assert owner[2].tolist()[2:] == [2, 2]
    assert "a.h5 has patches of 3 of 12 cells (3 × 4): the others take the nearest" in caplog.text


@pytest.mark.parametrize(
    ("corners", "side", "message"),
    [
        ([[0, 0], [128, 0]], 256, r"side by side, 256 apart, got .* in row 1"),
        ([[0, 0], [0, 0]], 256, r"side by side, 256 apart"),
    ],
)
def test_patches_that_overlap_are_refused(tmp_path, corners, side, message):
    with pytest.raises(files.WeightsError, match=message):
        embedding_grids.of_file(write(tmp_path / "a.h5", corners, side))


def test_a_file_without_corners_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.eye(3)
    with pytest.raises(files.WeightsError, match=r"a\.h5: expected embeddings with coords"):
        embedding_grids.of_file(tmp_path / "a.h5")
