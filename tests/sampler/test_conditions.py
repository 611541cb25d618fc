import functools

import numpy as np
import pytest

from ssldiff_jax.diffusion import cells
from ssldiff_jax.sampler import conditions, encode

WINDOW, FACTOR, PX = 8, 4, 32
GRID = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


def lattice(border="margin", canvas=(24, 32), method="slerp"):
    return conditions.Lattice(GRID, canvas, WINDOW, border, method)


def of_cells(rows, cols):
    place = np.meshgrid(np.arange(rows) * WINDOW, np.arange(cols) * WINDOW, indexing="ij")
    return np.stack(place, -1).reshape(-1, 2)


def test_windows_that_are_cells_see_the_cells():
    corners = of_cells(3, 4)
    found = conditions.InterpolatedCondition(lattice())(corners)
    np.testing.assert_allclose(found, GRID.reshape(12, 5), atol=1e-5)
    embedding, place = cells.unpack(conditions.CellsCondition(lattice())(corners), 4)
    np.testing.assert_array_equal(embedding[:, 0], GRID.reshape(12, 5))
    np.testing.assert_allclose(cells.coverage(place, 8, 8)[..., 0], 1)


def tokens_of(per_side):
    """A grid of 3 × 4 cells of `per_side`² tokens of 5 numbers."""
    shape = (3, 4, per_side**2 * 5)
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("border", ["margin", "wrap"])
@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_windows_that_are_cells_have_their_tokens(border, per_side):
    grid, corners = tokens_of(per_side), of_cells(3, 4)
    packed = conditions.Lattice(grid, (24, 32), WINDOW, border, "slerp", per_side)
    between = conditions.InterpolatedCondition(packed)(corners)
    np.testing.assert_allclose(between, grid.reshape(12, -1), atol=1e-5)
    touched, _ = cells.unpack(conditions.CellsCondition(packed)(corners), 4)
    np.testing.assert_array_equal(touched[:, 0], grid.reshape(12, -1))


@pytest.mark.parametrize("border", ["margin", "wrap"])
@pytest.mark.parametrize("canvas", [(24, 32), (50, 40)])
@pytest.mark.parametrize("per_side", [2, 4])
def test_tokens_between_cells_are_those_of_as_many_smaller_windows(border, canvas, per_side):
    """Each square of a window is a window on the lattice of all tokens."""
    grid, small = tokens_of(per_side), WINDOW // per_side
    fine = np.zeros((3 * per_side, 4 * per_side, 5), np.float32)
    for row, col, i, j in np.ndindex(3, 4, per_side, per_side):
        number = 5 * (per_side * i + j)
        fine[per_side * row + i, per_side * col + j] = grid[row, col, number : number + 5]
    corners = np.array([[3, 5], [-2, 30], [11, 2], [20, 28]])
    packed = conditions.Lattice(grid, canvas, WINDOW, border, "slerp", per_side)
    found = packed.interpolated(corners).reshape(4, per_side, per_side, 5)
    alone = conditions.Lattice(fine, canvas, small, border, "slerp")
    for i, j in np.ndindex(per_side, per_side):
        expected = alone.interpolated(corners + small * np.array([i, j]))
        np.testing.assert_allclose(found[:, i, j], expected, atol=1e-5)


def test_a_grid_of_tokens_that_is_stretched_keeps_its_tokens_in_order():
    """Half as many windows as cells each way: a window has one token of each of four cells."""
    grid = tokens_of(2)[:2]
    packed = conditions.Lattice(grid, (WINDOW, 2 * WINDOW), WINDOW, "margin", "lerp", 2)
    cells_ = packed.of_windows().grid.reshape(1, 2, 2, 2, 5)
    tokens = grid.reshape(2, 4, 4, 5).mean(axis=2)  # of a cell, in the middle of its four
    np.testing.assert_allclose(cells_[0, 1, 1, 0], tokens[1, 2], atol=1e-5)
    np.testing.assert_allclose(cells_[0, 0, 0, 1], tokens[0, 1], atol=1e-5)


def test_beyond_the_canvas_the_grid_goes_on_by_its_edge():
    far = np.array([[-4, 8], [20, 8], [8, -4], [8, 28]])
    found = conditions.InterpolatedCondition(lattice())(far)
    np.testing.assert_allclose(found, GRID[[0, 2, 1, 1], [1, 1, 0, 3]], atol=1e-5)


def test_a_grid_that_wraps_goes_on_from_its_other_side():
    inside, beyond = np.array([[3, 29]]), np.array([[3 - 24, 29 - 32]])
    for kind in (conditions.InterpolatedCondition, conditions.CellsCondition):
        condition = kind(lattice("wrap"))
        np.testing.assert_allclose(condition(beyond), condition(inside), atol=1e-4)
    embedding, _ = cells.unpack(conditions.CellsCondition(lattice("wrap"))(np.array([[20, 28]])), 4)
    np.testing.assert_array_equal(embedding[0], GRID[[2, 2, 0, 0], [3, 0, 3, 0]])


def test_touched_cells_and_their_places():
    embedding, place = cells.unpack(conditions.CellsCondition(lattice())(np.array([[6, 10]])), 4)
    np.testing.assert_array_equal(embedding[0], GRID[[0, 0, 1, 1], [1, 2, 1, 2]])
    np.testing.assert_allclose(
        place[0], [[-0.75, -0.25], [-0.75, 0.75], [0.25, -0.25], [0.25, 0.75]]
    )


def test_a_stretched_grid_is_laid_out_in_cells_of_a_window():
    """Twice as many windows as cells each way."""
    stretched = conditions.Lattice(GRID, (48, 64), WINDOW, "margin", "lerp").of_windows()
    assert stretched.grid.shape == (6, 8, 5)
    np.testing.assert_allclose(stretched.grid[0, 0], GRID[0, 0], atol=1e-5)
    middle = 0.75 * GRID[0, 0] + 0.25 * GRID[0, 1]
    np.testing.assert_allclose(stretched.grid[0, 1], middle, atol=1e-5)


@pytest.mark.parametrize("border", ["margin", "wrap"])
def test_dense_conditions_embed_what_lies_there(border):
    """The patch is the reference's own inside, mirrored or from the other side beyond it."""
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    asked = []

    def embed(patches):
        asked.append(len(patches))
        return patches.reshape(len(patches), -1)[:, ::97].astype(np.float32)

    dense = conditions.DenseCondition(
        conditions.array_reader(image), (96, 128), embed, PX, FACTOR, border
    )
    corners = np.array([[3, 5], [-2, 30], [3, 5]])
    found = dense(corners)
    assert asked == [2]
    mode = "wrap" if border == "wrap" else "reflect"
    padded = np.pad(image, ((PX, PX), (PX, PX), (0, 0)), mode)
    patches = np.stack([padded[y : y + PX, x : x + PX] for y, x in corners * FACTOR + PX])
    np.testing.assert_array_equal(found, patches.reshape(3, -1)[:, ::97])


@pytest.mark.parametrize(("kept", "asked"), [(0, [3, 3, 2]), (2, [3, 1, 1]), (9, [3, 0, 0])])
def test_a_place_is_embedded_once_where_windows_return(kept, asked):
    """Three windows seen twice, then two of them; `kept` embeddings of 5 numbers are held. The
    first that came are those that stay."""
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    embedded, read = [], []

    def embed(patches):
        embedded.append(len(patches))
        return patches.reshape(len(patches), -1)[:, :5].astype(np.float32)

    def reader(*at):
        read.append(at)
        return conditions.array_reader(image)(*at)

    make = functools.partial(
        conditions.DenseCondition, reader, (96, 128), embed, PX, FACTOR, cache_bytes=kept * 20
    )
    dense = make()
    corners = np.array([[3, 5], [9, 1], [0, 7]])
    first, again, two = dense(corners), dense(corners[::-1]), dense(corners[[2, 1]])
    assert embedded == [count for count in asked if count]
    assert len(read) == sum(asked)
    np.testing.assert_array_equal(again, first[::-1])
    np.testing.assert_array_equal(two, first[[2, 1]])


@pytest.mark.parametrize("size", [1, 2, 7])
def test_mirroring_is_numpys(size):
    line = np.arange(size)
    found = conditions.beyond_border(-3 * size, 7 * size, size, "margin")
    np.testing.assert_array_equal(found, np.pad(line, 3 * size, "reflect" if size > 1 else "edge"))


def test_images_are_encoded_tile_by_tile():
    """An encoder of means of 4 × 4 px: tiles and their context leave no trace."""
    image = np.random.default_rng(2).integers(0, 256, (90, 70, 3), np.uint8)
    mean = lambda params, x: x.reshape(1, x.shape[1] // 4, 4, x.shape[2] // 4, 4, 3).mean((2, 4))
    found = encode.TiledEncoder(mean, 4, 8, 2)(None, image, (23, 18))
    padded = np.pad(image, ((0, 2), (0, 2), (0, 0)), "reflect") / 127.5 - 1
    expected = padded.reshape(23, 4, 18, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_kept_of_a_latent_is_the_least_of_its_pixels():
    keep = np.ones((7, 8), np.float32)
    keep[2, 5] = 0
    found = encode.keep_of(keep, (2, 2), 4)
    np.testing.assert_array_equal(found, [[1, 0], [1, 1]])


@pytest.mark.parametrize("border", ["margin", "wrap"])
def test_windows_carry_the_map_under_them(border):
    """Beyond the canvas it is mirrored, or its other side."""
    latents = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)
    inner = lambda corners: corners.astype(np.float32)
    condition = conditions.MappedCondition(inner, latents, 4, border)
    corners = np.array([[1, 3], [-2, 5], [4, 6]])
    found = condition(corners)
    np.testing.assert_array_equal(found[:, :2], corners)
    mode = "reflect" if border == "margin" else "wrap"
    around = np.pad(latents, ((4, 4), (4, 4), (0, 0)), mode)
    for (row, col), shown in zip(corners, found[:, 2:], strict=True):
        expected = around[row + 4 : row + 8, col + 4 : col + 8]
        np.testing.assert_array_equal(shown, expected.ravel())


def test_cells_of_tokens_are_the_packed_ones_laid_out():
    """A lattice with a cell for each token gives what one of packed tokens does."""
    packed = np.random.default_rng(0).normal(size=(2, 3, 4 * 5)).astype(np.float32)
    fine = packed.reshape(2, 3, 2, 2, 5).swapaxes(1, 2).reshape(4, 6, 5)
    corners = np.array([[0, 0], [3, 7], [8, 16], [-2, 9]])
    of_windows = conditions.Lattice(packed, (16, 24), 8, tokens_per_side=2)
    of_tokens = conditions.Lattice(fine, (16, 24), 8, tokens_per_side=2, cells="tokens")
    np.testing.assert_array_equal(of_tokens.interpolated(corners), of_windows.interpolated(corners))
    # An odd number of cells: no window is whole.
    odd = conditions.Lattice(fine[:3], (12, 24), 8, tokens_per_side=2, cells="tokens")
    (tokens,) = odd.interpolated(np.array([[4, 8]])).reshape(1, 2, 2, 5)
    np.testing.assert_allclose(tokens, fine[1:3, 2:4], atol=1e-6)
