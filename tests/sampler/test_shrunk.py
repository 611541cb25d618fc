import numpy as np
import pytest
import scipy.interpolate
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.sampler import shrunk


def around(means):
    """With REACH more on every side, mirrored."""
    rows, cols = (
        shrunk.mirrored(np.arange(-shrunk.REACH, size + shrunk.REACH), size)
        for size in means.shape[:2]
    )
    return means[rows][:, cols]


def source():
    return np.random.default_rng(0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 16])
def test_the_spline_has_the_means_that_it_is_made_of(factor):
    means = source().normal(size=(9, 7, 3)).astype(np.float32)
    fine = shrunk.spread(around(means), factor)
    assert fine.shape == (9 * factor, 7 * factor, 3)
    np.testing.assert_allclose(shrunk.shrink(fine, factor), means, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 4, 5])
def test_the_spline_is_the_slope_of_the_cubic_one_through_running_sums(factor):
    """SciPy's, of a line that goes round, at the borders of all pixels."""
    means = source().normal(size=24)
    means -= means.mean()  # else the sums would not come back to where they begin
    sums = scipy.interpolate.CubicSpline(
        np.arange(25), np.concatenate([[0], np.cumsum(means)]), bc_type="periodic"
    )
    expected = np.diff(sums(np.arange(24 * factor + 1) / factor)) * factor
    rows = np.pad(means, shrunk.REACH, "wrap").astype(np.float32)
    # The same across, where its only spline is a constant.
    field = np.broadcast_to(rows[:, None, None], (len(rows), 2 * shrunk.REACH + 1, 1))
    found = shrunk.spread(np.ascontiguousarray(field), factor)[:, :, 0]
    for column in found.T:
        np.testing.assert_allclose(column, expected, atol=2e-3)


@pytest.mark.parametrize(("factor", "part"), [(2, 0.8), (4, 0.3), (8, 0.1)])
def test_squares_show_the_less_of_their_borders_the_larger_they_are(factor, part):
    """The spline goes on across them; copies of the means have all their steps there."""
    means = source().normal(size=(40, 40, 1)).astype(np.float32)
    at = np.arange(1, 40 * factor) % factor == 0
    steps = lambda fine: np.mean(np.diff(fine, axis=0) ** 2, axis=(1, 2))
    of_spline = steps(shrunk.spread(around(means), factor))
    of_copies = steps(means.repeat(factor, 0).repeat(factor, 1))
    assert of_copies[~at].max() == 0
    assert of_spline[at].mean() < part * of_copies[at].mean()


def test_a_line_is_mirrored_with_its_last_square():
    assert shrunk.mirrored(np.arange(-3, 6), 3).tolist() == [2, 1, 0, 0, 1, 2, 2, 1, 0]
    assert shrunk.mirrored(np.arange(-2, 3), 1).tolist() == [0] * 5


@given(
    factor=st.sampled_from([1, 2, 3, 8]),
    rows=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_strips_of_any_height_are_given_the_colours_of_the_whole(factor, rows, cuts):
    random = np.random.default_rng(rows)
    image = random.integers(60, 196, (rows * factor, 5 * factor, 3)).astype(np.uint8)
    coarse = random.integers(90, 166, (rows, 5, 3)).astype(np.uint8)
    whole = np.concatenate(list(shrunk.exchanged([image], coarse, factor)))
    cuts = sorted(min(cut, len(image)) for cut in cuts)
    strips = [strip for strip in np.split(image, cuts) if len(strip)]
    found = list(shrunk.exchanged(strips, coarse, factor))
    np.testing.assert_array_equal(np.concatenate(found), whole)
    # Rounding of every pixel is half a grey level at the most.
    inside = (whole > 0) & (whole < 255)
    if inside.all():
        assert np.abs(shrunk.shrink(whole, factor) - coarse).max() <= 0.5 + 0.2


def test_an_image_of_these_colours_stays_as_it_is():
    image = source().integers(0, 256, (24, 32, 3)).astype(np.uint8)
    image = image.reshape(6, 4, 8, 4, 3)
    image[:, ::2] = 255 - image[:, 1::2]  # means of 127.5 in every square
    image = image.reshape(24, 32, 3)
    lighter = np.full((6, 8, 3), 128, np.uint8)
    found = np.concatenate(list(shrunk.exchanged([image], lighter, 4)))
    assert np.abs(found.astype(int) - image).max() <= 1


def test_strips_wait_for_no_more_than_they_need():
    """After a strip, all but the last REACH rows of squares are given."""
    coarse, given_rows, taken = np.zeros((40, 3, 3), np.uint8), 0, 0

    def strips():
        nonlocal taken
        for _ in range(10):
            taken += 16
            yield np.zeros((16, 12, 3), np.uint8)

    for strip in shrunk.exchanged(strips(), coarse, 4):
        given_rows += len(strip)
        assert given_rows in (taken - 4 * shrunk.REACH, 160)
    assert given_rows == 160


@pytest.mark.parametrize("step", [4, 8, 20])
def test_correlation_is_that_of_all_squares(step):
    image = source().integers(0, 256, (40, 24, 3)).astype(np.uint8)
    coarse = source().integers(0, 256, (10, 6, 3)).astype(np.uint8)
    strips = [image[top : top + step] for top in range(0, 40, step)]
    expected = np.corrcoef(shrunk.shrink(image, 4).ravel(), coarse.ravel().astype(float))[0, 1]
    assert shrunk.correlation(strips, coarse, 4) == pytest.approx(expected, abs=1e-9)
    flat = np.full((10, 6, 3), 7, np.uint8)
    assert shrunk.correlation(strips, flat, 4) == 0


def test_a_coarse_image_has_the_rounded_means():
    image = source().integers(0, 256, (6, 9, 3)).astype(np.uint8)
    found = shrunk.coarse_of(image, 3)
    for row in range(2):
        for col in range(3):
            square = image[3 * row : 3 * row + 3, 3 * col : 3 * col + 3].astype(float)
            np.testing.assert_array_equal(found[row, col], np.round(square.mean(axis=(0, 1))))
    with pytest.raises(ValueError, match="multiples of it as sides, got 6 × 9 px"):
        shrunk.coarse_of(image, 2)


@pytest.mark.parametrize(
    ("size", "coarse", "factor"), [((64, 96), (16, 24), 4), ((64, 96), (64, 96), 1)]
)
def test_sizes_say_the_factor(size, coarse, factor):
    assert shrunk.factor_between(size, coarse, "it") == factor


@pytest.mark.parametrize("coarse", [(16, 25), (15, 24), (20, 30), (128, 192), (16, 48)])
def test_sizes_that_are_no_whole_number_of_times_apart_are_refused(coarse):
    message = r"small\.png must have the image's 64 × 96 px over one whole number, got "
    with pytest.raises(ValueError, match=message + f"{coarse[0]} × {coarse[1]} px"):
        shrunk.factor_between((64, 96), coarse, "small.png")
