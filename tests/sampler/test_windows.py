import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.sampler import windows


def config_of(mode="overlap", *, stride=4, max_offset=2, weights="uniform"):
    return windows.WindowConfig(mode, stride, max_offset, weights)


@st.composite
def plans(draw, mode):
    window = draw(st.integers(1, 9))
    canvas = tuple(draw(st.integers(window, 4 * window + 3)) for _ in range(2))
    config = config_of(
        mode, stride=draw(st.integers(1, window)), max_offset=draw(st.integers(0, window))
    )
    steps = draw(st.integers(1, 6))
    return config, windows.plan_windows(config, canvas, window, steps, draw(st.integers(0, 10**6)))


def visits(plan, step):
    """How many windows see each pixel of the field."""
    count = np.zeros(plan.field, int)
    for top, left in plan.positions[step]:
        assert min(top, left) >= 0
        assert top + plan.window <= plan.field[0]
        assert left + plan.window <= plan.field[1]
        count[top : top + plan.window, left : left + plan.window] += 1
    return count


def on_canvas(plan, count):
    top = plan.margin
    found = count[top : top + plan.canvas[0], top : top + plan.canvas[1]]
    assert found.shape == plan.canvas
    return found


@given(drawn=plans("overlap"))
@settings(max_examples=40, deadline=None)
def test_overlapping_windows_cover_the_canvas(drawn):
    config, plan = drawn
    assert (plan.field, plan.margin) == (plan.canvas, 0)
    count = visits(plan, 0)
    assert on_canvas(plan, count).min() >= 1
    assert np.all(plan.positions == plan.positions[0])
    needed = np.prod([-(-(size - plan.window) // config.stride) + 1 for size in plan.canvas])
    assert plan.num_windows == needed == len(np.unique(plan.positions[0], axis=0))


@given(drawn=plans("offset"))
@settings(max_examples=60, deadline=None)
def test_offset_windows_cover_the_canvas_once_at_every_step(drawn):
    config, plan = drawn
    for step in range(len(plan.positions)):
        count = visits(plan, step)
        assert count.max() == 1
        assert on_canvas(plan, count).min() == 1
        # The grid, seen from the canvas, has moved by no more than max_offset either way.
        moved = (plan.positions[step] - plan.margin) % plan.window
        assert len(np.unique(moved, axis=0)) == 1
        assert np.all(np.minimum(moved, plan.window - moved) <= config.max_offset)


def test_offsets_use_their_whole_range():
    plan = windows.plan_windows(config_of("offset", max_offset=3), (16, 16), 8, 200)
    moved = (plan.positions[:, 0] + 4) % 8 - 4
    for axis in (0, 1):
        values, counts = np.unique(moved[:, axis], return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert counts.min() > 0.8 * 200 / 7
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.1


def test_plans_follow_their_seed():
    plan = lambda seed: windows.plan_windows(config_of("offset"), (16, 24), 8, 12, seed).positions
    np.testing.assert_array_equal(plan(3), plan(3))
    assert np.any(plan(3) != plan(4))
    # One trace for all seeds: the shapes do not move.
    assert plan(3).shape == plan(4).shape


@given(window=st.integers(1, 20), extra=st.integers(0, 60), stride=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_covering_starts(window, extra, stride):
    stride, size = min(stride, window), window + extra
    starts = windows.covering_starts(size, window, stride)
    assert starts[0] == 0
    assert starts[-1] == size - window
    assert np.all((np.diff(starts) > 0) & (np.diff(starts) <= stride))
    assert np.all(np.diff(starts)[:-1] == stride)


def test_centres_are_in_canvas_coordinates():
    plan = windows.plan_windows(config_of(stride=4), (8, 12), 8, 2)
    np.testing.assert_array_equal(plan.centres(), [[[4, 4], [4, 8]]] * 2)
    plan = windows.plan_windows(config_of("offset", max_offset=2), (8, 12), 8, 2)
    np.testing.assert_array_equal(plan.centres(), plan.positions - 8 + 4)


@pytest.mark.parametrize("window", [1, 5, 8])
def test_tapered_weights_are_a_positive_symmetric_pyramid(window):
    weights = windows.window_weights(config_of(weights="tapered"), window)
    assert weights.min() > 0
    for turned in (weights.T, weights[::-1], weights[:, ::-1]):
        np.testing.assert_allclose(turned, weights, rtol=1e-6)
    middle = weights[window // 2]
    assert np.all(np.diff(middle[: (window + 1) // 2]) > 0)
    np.testing.assert_array_equal(windows.window_weights(config_of(), window), 1)


@pytest.mark.parametrize(
    ("config", "canvas", "message"),
    [
        (config_of(), (7, 20), "must hold a whole window, got canvas=7×20, window=8"),
        (config_of("offset"), (20, 7), "must hold a whole window, got canvas=20×7, window=8"),
        (config_of(stride=0), (16, 16), r"stride must lie in \[1, window\], got stride=0"),
        (config_of(stride=9), (16, 16), "got stride=9, window=8"),
        (config_of("offset", max_offset=9), (16, 16), "got max_offset=9, window=8"),
        (config_of("offset", max_offset=-1), (16, 16), "got max_offset=-1, window=8"),
    ],
)
def test_what_does_not_fit_is_refused(config, canvas, message):
    with pytest.raises(ValueError, match=message):
        windows.plan_windows(config, canvas, 8, 3)
