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


@pytest.mark.parametrize("side", [2, 3, 8, 16])
@pytest.mark.parametrize("per_side", [2, 4])
def test_tokens_of_cells_cover_their_squares(side, per_side):
    """Against a count of points, 192 to a side of a window."""
    layout = cells.CellTokens(cells.cell_offsets(CORNERS), per_side)
    count = 4 * per_side**2
    assert layout.place.shape == (4, count, 2)
    one_hot = jnp.broadcast_to(jnp.eye(count), (4, count, count))
    covered = np.asarray(layout.spread(one_hot, side, side))
    np.testing.assert_allclose(covered.sum(axis=-1), 1, atol=1e-5)
    points = (np.arange(192) + 0.5) / 192
    for corner, area in zip(CORNERS, covered, strict=True):
        rows, cols = ((points - c) * per_side // 1 for c in corner)
        cell = 2 * (rows // per_side)[:, None] + cols // per_side
        square = per_side * (rows % per_side)[:, None] + cols % per_side
        number = (per_side**2 * cell + square).astype(int)
        blocks = number.reshape(side, 192 // side, side, 192 // side)
        expected = np.stack([(blocks == i).mean(axis=(1, 3)) for i in range(count)], -1)
        np.testing.assert_allclose(area, expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 5), (6, 8), (16, 16)])
@pytest.mark.parametrize("per_side", [2, 4])
def test_tokens_of_a_patch_are_those_of_the_cell_it_is(height, width, per_side):
    values = np.random.default_rng(0).normal(size=(3, per_side**2, 5)).astype(np.float32)
    layout = cells.PatchTokens(per_side)
    spread = np.asarray(layout.spread(jnp.asarray(values), height, width))
    # Every pixel and every token as squares of one lattice, that pixels are means over.
    grid = values.reshape(3, per_side, per_side, 5)
    fine = grid.repeat(height, axis=1).repeat(width, axis=2)
    blocks = fine.reshape(3, height, per_side, width, per_side, 5)
    np.testing.assert_allclose(spread, blocks.mean(axis=(2, 4)), atol=1e-5)
    area = cells.coverage(np.tile(layout.place, (3, 1, 1)), height, width, 1 / per_side)
    np.testing.assert_allclose(np.sum(area, axis=-1), 1, atol=1e-5)
    by_area = np.einsum("bhwm,bmf->bhwf", area, values)
    np.testing.assert_allclose(spread, by_area, atol=1e-5)


@pytest.mark.parametrize("per_side", [2, 4])
def test_no_two_tokens_around_a_window_are_told_the_same_place(per_side):
    corners = np.stack(np.meshgrid(-np.arange(16) / 16, [-0.25]), -1).reshape(-1, 2)
    for place in cells.CellTokens(cells.cell_offsets(corners), per_side).place:
        features = np.asarray(
            conditioning._fourier_features(place[None], conditioning._TOKEN_WAVES)
        )[0]
        apart = np.linalg.norm(features[:, None] - features, axis=-1)
        assert apart[~np.eye(len(apart), dtype=bool)].min() > 0.1


KINDS = ["scale_shift", "cross_attention"]


def denoiser(kind, **sizes):
    unet_sizes = unet.UNetConfig(2, 16, (1, 2), 1, (), 2, 16, kind)
    return conditioning.Denoiser(conditioning.DenoiserConfig(unet_sizes, 6, "root_dim", **sizes))


def random_params(model, count=1):
    x_t, t = np.zeros((count, 16, 16, 2), np.float32), np.zeros(count, int)
    condition = np.zeros((count, model.config.condition_dim), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x_t, t, condition)["params"]
    source = np.random.default_rng(1)
    return jax.tree.map(lambda p: 0.2 * source.normal(size=p.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("per_side", [2, 4])
@pytest.mark.parametrize("num_cells", [1, 4])
def test_equal_tokens_are_one_embedding(num_cells, per_side):
    """With weights that do not look at places, a denoiser of tokens that are all the same is the
    denoiser of the embedding that they are, whose parameters have the same names."""
    plain = denoiser("scale_shift", num_cells=num_cells)
    model = denoiser("scale_shift", num_cells=num_cells, tokens_per_side=per_side)
    params = random_params(plain)
    blind = {"kernel": np.zeros((12, 16), np.float32), "bias": np.zeros(16, np.float32)}
    if num_cells > 1:
        params["conditioner"]["place"] = {"kernel": np.zeros((8, 16)), "bias": np.zeros(16)}
    with_tokens = params | {"conditioner": params["conditioner"] | {"place": blind}}
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    assert shapes(random_params(model)) == shapes(with_tokens)
    source = np.random.default_rng(2)
    x_t = source.normal(size=(4, 16, 16, 2)).astype(np.float32)
    embedding, t = source.normal(size=(4, num_cells, 6)).astype(np.float32), np.arange(4) * 200
    tokens = np.tile(embedding, (1, 1, per_side**2))
    place = cells.cell_offsets(CORNERS)
    one, many = (
        values[:, 0] if num_cells == 1 else cells.pack(values, place)
        for values in (embedding, tokens)
    )
    assert many.shape == (4, model.config.condition_dim)
    expected = plain.apply({"params": params}, x_t, t, one)
    found = model.apply({"params": with_tokens}, x_t, t, many)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("num_cells", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_seen_where_it_lies(kind, num_cells):
    model = denoiser(kind, num_cells=num_cells, tokens_per_side=2)
    params, source = random_params(model), np.random.default_rng(3)
    apply = jax.jit(
        lambda condition: model.apply({"params": params}, x_t, np.array([500]), condition)
    )
    x_t = source.normal(size=(1, 16, 16, 2)).astype(np.float32)
    tokens = source.normal(size=(1, num_cells, 4, 6)).astype(np.float32)
    # Of cells the window is the first one.
    place = cells.cell_offsets(np.zeros((1, 2)))
    packed = lambda values: (
        values.reshape(1, -1) if num_cells == 1 else cells.pack(values.reshape(1, 4, -1), place)
    )
    base = apply(packed(tokens))
    for number in range(4):
        changed = tokens.copy()
        changed[0, 0, number] = source.normal(size=6)
        moved = np.abs(apply(packed(changed)) - base)[0].mean(axis=-1)
        assert moved.max() > 1e-3
        if kind == "scale_shift":
            quarters = moved.reshape(2, 8, 2, 8).mean(axis=(1, 3)).ravel()
            assert quarters.argmax() == number
    # The order matters: tokens in each other's places are another condition.
    turned = apply(packed(tokens[:, :, ::-1]))
    assert np.abs(turned - base).max() > 1e-3


def test_tokens_as_they_are_stored_give_what_they_say():
    """Squares of float16 are infinite from 256 on."""
    model = denoiser("scale_shift", tokens_per_side=2)
    assert model.config.condition_dtype == np.float16
    params, source = random_params(model), np.random.default_rng(4)
    x_t = source.normal(size=(2, 16, 16, 2)).astype(np.float32)
    stored = (500 * source.normal(size=(2, 24))).astype(np.float16)
    apply = lambda condition: model.apply({"params": params}, x_t, np.array([9, 500]), condition)
    np.testing.assert_allclose(apply(stored), apply(stored.astype(np.float32)), atol=1e-5)
    assert np.all(np.isfinite(apply(np.zeros((2, 24), np.float16))))
