import numpy as np
import pytest
from scipy import stats

from ssldiff_jax.evaluation.metrics import bootstrap


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def with_counts(values):
    return np.stack([values, np.ones_like(values)], axis=-1)


@pytest.mark.parametrize(
    ("size", "side", "lattice"),
    [((512, 512), 64, (4, 4)), ((192, 768), 64, (2, 6)), ((64, 64), 64, (1, 1))],
)
def test_blocks_are_two_by_two_cells(size, side, lattice):
    blocks = bootstrap.Blocks.of([size, size], side)
    assert blocks.lattices == (lattice, lattice)
    assert blocks.name == "blocks of 2 × 2 cells"


def test_many_images_are_resampled_whole():
    blocks = bootstrap.Blocks.of([(512, 512)] * bootstrap.MANY, 64)
    assert blocks.lattices == ((1, 1),) * bootstrap.MANY
    assert blocks.name == "images"


def test_sums_of_blocks_are_those_of_their_places():
    places = np.random.default_rng(0).normal(size=(13, 22, 3))
    sums = bootstrap.Blocks(((2, 3),), "blocks").sums(0, places)
    rows, cols = (0, 6, 13), (0, 7, 14, 22)
    expected = [
        places[rows[i] : rows[i + 1], cols[j] : cols[j + 1]].sum(axis=(0, 1))
        for i in range(2)
        for j in range(3)
    ]
    np.testing.assert_allclose(sums, expected, rtol=1e-12)


def test_a_map_coarser_than_blocks_keeps_its_mean():
    places = with_counts(np.array([[1.0, 4.0]]))
    sums = bootstrap.Blocks(((3, 4),), "blocks").sums(0, places)
    assert len(sums) == 12
    assert mean(sums.sum(axis=0, keepdims=True))[0] == pytest.approx(2.5)


@pytest.mark.parametrize("count", [8, 32])
def test_the_interval_of_a_mean_is_student_s(count):
    values = np.random.default_rng(count).normal(3, 2, count)
    estimate = bootstrap.estimate(with_counts(values), mean, "blocks")
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    width = high - low
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(low, abs=0.12 * width)
    assert estimate.high == pytest.approx(high, abs=0.12 * width)
    assert estimate.interval == f"95%, bootstrap over {count} blocks"


@pytest.mark.parametrize("count", [12, 40])
def test_intervals_of_a_ratio_hold_it_as_often_as_they_say(count):
    """A ratio of sums, not a mean: that of two gamma variables with means 3 and 2."""
    generator, held, repeats = np.random.default_rng(1), 0, 400
    for _ in range(repeats):
        shared = generator.gamma(4, size=count)
        sums = np.stack([shared * generator.gamma(3, size=count), shared * 2], axis=-1)
        estimate = bootstrap.estimate(sums, mean, "blocks")
        held += estimate.low <= 1.5 <= estimate.high
    assert 0.90 <= held / repeats <= 0.985


def test_too_few_blocks_have_a_figure_without_an_interval():
    values = np.arange(1.0, 8.0)
    estimate = bootstrap.estimate(with_counts(values), mean, "blocks")
    assert (estimate.value, estimate.low, estimate.high) == (4.0, None, None)
    assert estimate.interval == "too few: 7 blocks, 8 needed"


def test_what_is_not_defined_is_said():
    undefined = lambda sums: np.full(sums.shape[:-1], np.nan)
    estimate = bootstrap.estimate(with_counts(np.ones(9)), undefined, "blocks")
    assert estimate.value is None
    assert estimate.interval == "none: not defined of this data"
