"""Labels of quadrants, told to the cells that lie in them."""

import jax
import numpy as np
import pytest

from ssldiff_jax.data.annotations import measures
from ssldiff_jax.prior import conditions, network

SIZES = network.NetworkConfig(width=32, depth=1, num_heads=2)


@pytest.mark.parametrize("described", [(4, 4), (3, 5), (6, 6), (7, 4)])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (2, 1)])
def test_a_cell_has_the_mean_of_the_labels_of_its_pixels(described, corner):
    """By brute force: every cell is 10 × 10 px of a map of quadrants."""
    names, areas = measures.label_names("stain"), measures.label_areas("stain")
    values = np.random.default_rng(0).random((1, len(names))).astype(np.float32)
    by_name = dict(zip(names, values[0], strict=True))
    height, width = (10 * n for n in described)
    expected = []
    for kind in measures.CLASSES["stain"]:
        pixels = np.empty((height, width))
        for i, where in enumerate(measures.QUADRANTS):
            r, c = divmod(i, 2)
            rows = slice(r * height // 2, height // 2 if r == 0 else height)
            cols = slice(c * width // 2, width // 2 if c == 0 else width)
            pixels[rows, cols] = by_name[f"{kind} {where}"]
        cells = pixels.reshape(described[0], 10, described[1], 10).mean(axis=(1, 3))
        expected.append(cells[corner[0] : corner[0] + 3, corner[1] : corner[1] + 3])
    rows, cols = expected[0].shape
    place = conditions.GridPosition.of_cells(np.array([corner]), described)
    found = network.labels_of_cells(values, areas, place, rows, cols)
    np.testing.assert_allclose(found[0].T.reshape(3, rows, cols), expected, atol=1e-5)


def test_without_a_place_nothing_is_told():
    areas, values = measures.label_areas("stain"), np.ones((2, 15), np.float32)
    place = np.array([conditions.GridPosition.UNTOLD, (0, 0, 0.25, 0.25)], np.float32)
    found = np.asarray(network.labels_of_cells(values, areas, place, 4, 4))
    assert not found[0].any()
    np.testing.assert_allclose(found[1], 1)


def test_a_label_that_is_not_known_is_told_from_one_of_nothing():
    """Of a quadrant both values are 0: the cells there must see which it is."""
    spec = conditions.ConditionSpec(
        measures.label_names("stain"), areas=measures.label_areas("stain")
    )
    model = network.GridDenoiser(SIZES, spec)
    x, t = np.zeros((1, 2, 2, 3), np.float32), np.array([500])
    place = conditions.GridPosition.of_cells(np.array([[0, 0]]), (2, 2))
    unknown = np.full((1, 15), np.nan, np.float32)
    nothing = np.where(np.arange(15) == 1, 0, unknown)  # no nuclei in the north-west
    pack = lambda labels: spec.pack(1, labels=labels.astype(np.float32), place=place)
    params = model.init(jax.random.key(0), x, t, pack(unknown))["params"]
    params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params
    )
    run = lambda labels: np.asarray(model.apply({"params": params}, x, t, pack(labels)))
    assert np.abs(run(nothing) - run(unknown)).max() > 1e-3


def test_older_priors_are_told_no_quadrants():
    assert conditions.ConditionSpec(measures.label_names("stain")).areas == ()
