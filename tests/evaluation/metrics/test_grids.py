import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import grids


def smooth(count, seed):
    """Grids whose neighbours are alike: half of every cell is the grid's own."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(count, 1, 1, 4))
    return (shared + generator.normal(size=(count, 3, 3, 4))) / np.sqrt(2)


@pytest.fixture(scope="module")
def real():
    return smooth(400, 0)


@pytest.fixture(scope="module")
def training():
    return smooth(800, 1)


def test_grids_of_the_same_kind_are_near_and_as_new(real, training):
    found = grids.compare(smooth(400, 2), real, training)
    assert found.frechet_of_cells.low == 0
    assert found.frechet_of_cells.uncorrected < 0.05
    assert 0.9 < found.neighbour_correlation < 1.1
    assert 0.95 < found.nearest_distance < 1.05
    assert min(found.precision, found.recall) > 0.6


def test_cells_drawn_apart_have_no_neighbours(real, training):
    apart = training.reshape(-1, 4)[np.random.default_rng(3).permutation(800 * 9)]
    found = grids.compare(apart.reshape(800, 3, 3, 4)[:400], real, training)
    assert found.frechet_of_cells.uncorrected < 0.05  # each of them is real
    assert abs(found.neighbour_correlation) < 0.1
    alike = grids.compare(smooth(400, 2), real, training).frechet_of_grids
    assert found.frechet_of_grids.low > 5 * alike.high


def test_the_distance_of_cells_covers_that_of_all_grids():
    """Grids half as wide: a cell is of deviation 1 and 1/2, in 4 dimensions. Cells of a grid are
    alike, so that blocks of cells would be too sure."""
    found = [grids.frechet(smooth(60, [6, i]) / 2, smooth(60, [7, i])) for i in range(40)]
    assert np.mean([f.low <= 4 * 0.5**2 <= f.high for f in found]) >= 0.85
    assert all(f.low <= f.corrected <= f.high for f in found)
    assert found[0].counts == (540, 540)


def test_of_few_grids_no_more_is_told_than_they_tell(real, training):
    found = grids.compare(smooth(140, 2), real, training)
    assert found.precision is found.recall is None
    assert found.frechet_of_grids.corrected is not None
    found = grids.compare(smooth(60, 2), real, training)
    told = "too few: 60 vectors of 32 numbers, 68 needed"
    assert found.frechet_of_grids.interval == told
    assert found.frechet_of_grids.corrected is None


def test_copies_are_found(real, training):
    found = grids.compare(training[:400] + 1e-3, real, training)
    assert found.nearest_distance < 0.01


def test_a_prior_without_variety_has_no_recall(real, training):
    one = np.repeat(smooth(1, 4), 400, axis=0) + 0.01 * smooth(400, 5)
    found = grids.compare(one, real, training)
    assert found.recall < 0.1


def test_agreement_is_the_correlation_with_what_was_asked(real):
    """Grids whose first part is what was asked for, and grids that do not care."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 5))
    values = features[:, :1] * 0.3 + 0.5
    asked = generator.uniform(size=(200, 1))
    obeys = generator.normal(size=(200, 5))
    obeys[:, 0] = (asked[:, 0] - 0.5) / 0.3
    probe = grids.Probe.fit(features, values)
    assert grids.agreement(asked, obeys, probe) > 0.99
    assert abs(grids.agreement(asked, generator.normal(size=(200, 5)), probe)) < 0.2
