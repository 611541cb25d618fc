import numpy as np
import pytest
import small_configs
from hypothesis import given, settings
from hypothesis import strategies as st

from ssldiff_jax.sampler import windows


def config_of(
    mode="overlap",
    *,
    stride=4,
    max_offset=2,
    weights="uniform",
    border="margin",
    last=windows.SIDE_BY_SIDE,
):
    return windows.WindowConfig(mode, stride, max_offset, weights, border, last)


@st.composite
def plans(draw, mode, border="margin"):
    window = draw(st.integers(1, 9))
    canvas = tuple(draw(st.integers(window, 4 * window + 3)) for _ in range(2))
    if border == "wrap":
        canvas = tuple(size // window * window for size in canvas)
    weights = draw(st.sampled_from(["uniform", "tapered"]))
    stride, max_offset = draw(st.integers(1, window)), draw(st.integers(0, window // 2))
    last = windows.LastSteps(draw(st.integers(0, 3)), draw(st.floats(0, 0.5)))
    config = config_of(
        mode, stride=stride, max_offset=max_offset, weights=weights, border=border, last=last
    )
    steps = draw(st.integers(1, 6))
    return config, windows.plan_windows(config, canvas, window, steps, draw(st.integers(0, 10**6)))


def shares(plan, step):
    """Sum of the weights of all windows at each pixel of the torus, and how many see it."""
    weight, count = np.zeros(plan.field), np.zeros(plan.field, int)
    of_step = plan.steps[step]
    for (top, left), (rows, cols) in zip(of_step.corners(), of_step.shares(), strict=True):
        assert 0 <= top < plan.field[0]
        assert 0 <= left < plan.field[1]
        at = np.ix_(
            (top + np.arange(plan.window)) % plan.field[0],
            (left + np.arange(plan.window)) % plan.field[1],
        )
        weight[at] += np.outer(rows, cols)
        count[at] += 1
    return weight, count


def on_canvas(plan, found):
    return found[: plan.canvas[0], : plan.canvas[1]]


@given(drawn=st.one_of(plans("overlap"), plans("paper"), plans("offset"), plans("offset", "wrap")))
@settings(max_examples=120, deadline=None)
def test_weights_sum_to_one_at_every_pixel(drawn):
    _, plan = drawn
    for step in range(plan.num_steps):
        weight, count = shares(plan, step)
        np.testing.assert_allclose(on_canvas(plan, weight), 1, atol=1e-5)
        assert on_canvas(plan, count).min() >= 1
        corners = plan.steps[step].corners()
        assert len(corners) == plan.steps[step].count == len(np.unique(corners, axis=0))
    assert plan.num_windows == sum(len(step.corners()) for step in plan.steps)


@given(drawn=plans("overlap"))
@settings(max_examples=40, deadline=None)
def test_overlapping_windows_stay_on_the_canvas(drawn):
    config, plan = drawn
    first = plan.steps[0]
    assert np.all(first.corners() + plan.window <= plan.canvas)
    assert all(step is first for step in plan.steps)
    needed = np.prod([-(-(size - plan.window) // config.stride) + 1 for size in plan.canvas])
    assert first.count == needed == len(np.unique(first.corners(), axis=0))


@given(drawn=plans("offset"))
@settings(max_examples=60, deadline=None)
def test_offset_windows_see_every_pixel_once(drawn):
    """But in the last steps."""
    config, plan = drawn
    for step in range(plan.num_steps - config.last.steps):
        weight, count = shares(plan, step)
        assert np.all(count == 1)
        assert np.all(weight == 1)
        # The grid, seen from the canvas, has moved by no more than max_offset either way.
        moved = plan.steps[step].corners() % plan.window
        assert len(np.unique(moved, axis=0)) == 1
        assert np.all(np.minimum(moved, plan.window - moved) <= config.max_offset)


@given(drawn=plans("offset"))
@settings(max_examples=60, deadline=None)
def test_a_margin_keeps_the_sides_apart(drawn):
    """No window sees pixels of opposite borders, and each is placed on the side it touches."""
    config, plan = drawn
    if config.max_offset == 0:
        return
    for step in range(plan.num_steps):
        corners = plan.steps[step].corners()
        places = plan.places(corners)
        for axis in (0, 1):
            for corner, place in zip(corners[:, axis], places[:, axis], strict=True):
                seen = (corner + np.arange(plan.window)) % plan.field[axis]
                inside = seen[seen < plan.canvas[axis]]
                assert np.ptp(inside) < plan.window if len(inside) else True
                # In canvas coordinates the same pixels are in a row.
                unwrapped = place + np.arange(plan.window)
                kept = unwrapped[(unwrapped >= 0) & (unwrapped < plan.canvas[axis])]
                np.testing.assert_array_equal(kept, inside)


def test_offsets_use_their_whole_range():
    plan = windows.plan_windows(config_of("offset", max_offset=3), (16, 16), 8, 200)
    first = np.array([(step.rows[0], step.cols[0]) for step in plan.steps]).T
    moved = (first + 4) % 8 - 4
    for axis in (0, 1):
        values, counts = np.unique(moved[axis], return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert counts.min() > 0.8 * 200 / 7
    assert abs(np.corrcoef(moved)[0, 1]) < 0.1


@pytest.mark.parametrize("border", ["margin", "wrap"])
@pytest.mark.parametrize(("unit", "max_offset"), [(1, 2), (2, 2), (4, 2), (4, 8), (8, 3)])
def test_windows_begin_at_units(unit, max_offset, border):
    """Every pixel is still seen, in the last steps by windows that overlap as asked, where units
    let them; and the grid moves."""
    last = windows.LastSteps(3, 0.125)
    config = config_of("offset", max_offset=max_offset, border=border, last=last)
    plan = windows.plan_windows(config, (48, 64), 16, 12, 3, unit=unit)
    for number, step in enumerate(plan.steps):
        assert not (step.rows % unit).any()
        assert not (step.cols % unit).any()
        weight, count = shares(plan, number)
        np.testing.assert_allclose(weight, 1, rtol=1e-5)
        assert count.min() >= 1
        overlaps = count.max() > 1
        assert overlaps == (number >= 9)
    assert len({(tuple(step.rows), tuple(step.cols)) for step in plan.steps[:9]}) > 1
    farthest = max(max_offset // unit, 1) * unit
    first = np.array([(step.rows[0], step.cols[0]) for step in plan.steps[:9]])
    moved = (first + 8) % 16 - 8
    assert np.abs(moved[moved > -8]).max(initial=0) <= farthest


def test_units_that_divide_no_window_are_refused():
    with pytest.raises(ValueError, match="unit must divide the window, got unit=3, window=16"):
        windows.plan_windows(config_of("offset"), (48, 64), 16, 3, unit=3)


def test_plans_follow_their_seed():
    config = config_of("offset", last=windows.LastSteps(3, 0.25))

    def starts(seed):
        plan = windows.plan_windows(config, (16, 24), 8, 12, seed)
        return [np.concatenate([getattr(s, name) for s in plan.steps]) for name in ("rows", "cols")]

    for one, again, other in zip(starts(3), starts(3), starts(4), strict=True):
        np.testing.assert_array_equal(one, again)
        # As many whatever the seed.
        assert one.shape == other.shape
        assert np.any(one != other)


def test_published_windows():
    """169 windows of 64 for 1024² px, 16 apart."""
    plan = windows.plan_windows(config_of("paper", weights="tapered"), (256, 256), 64, 2)
    assert [step.count for step in plan.steps] == [169, 169]
    assert plan.steps[0].rows.tolist() == list(range(0, 193, 16))
    inner = plan.steps[0].row_weights[6]
    np.testing.assert_allclose(inner, 1 / 4)


@given(window=st.integers(1, 20), extra=st.integers(0, 60), stride=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_covering_starts(window, extra, stride):
    stride, size = min(stride, window), window + extra
    starts = windows.covering_starts(size, window, stride)
    assert starts[0] == 0
    assert starts[-1] == size - window
    assert np.all((np.diff(starts) > 0) & (np.diff(starts) <= stride))
    assert np.all(np.diff(starts)[:-1] == stride)


@given(drawn=st.one_of(plans("offset"), plans("offset", "wrap")))
@settings(max_examples=100, deadline=None)
def test_windows_of_the_last_steps_overlap(drawn):
    """By no less than is asked for, and no more windows than that takes; what a window says counts
    by the squared distance from its border, over all that see the pixel."""
    config, plan = drawn
    window, moves = plan.window, config.max_offset > 0 or config.border == "wrap"
    least = min(int(np.ceil(config.last.overlap * window)), window // 2)
    for step in plan.steps[plan.num_steps - min(config.last.steps, plan.num_steps) :]:
        for axis, (starts, shares) in enumerate(
            ((step.rows, step.row_weights), (step.cols, step.col_weights))
        ):
            length = plan.field[axis]
            gaps = np.diff(np.append(starts, starts[0] + length))[: None if moves else -1]
            assert np.all(gaps <= window - least)
            if moves:
                # One fewer could not overlap so much.
                assert (len(starts) - 1) * (window - least) < length
                assert np.ptp(gaps) <= 1
            for k, start in enumerate(starts):
                for i in range(window):
                    at = start + i
                    inside = (at - starts) % length
                    distance = np.minimum(inside, window - 1 - inside) + 0.5
                    seen = distance[inside < window] ** 2
                    expected = (min(i, window - 1 - i) + 0.5) ** 2 / seen.sum()
                    np.testing.assert_allclose(shares[k, i], expected, rtol=1e-5)


def test_a_grid_that_never_moves_overlaps_inside_its_canvas():
    config = config_of("offset", max_offset=0, last=windows.LastSteps(1, 0.25))
    plan = windows.plan_windows(config, (17, 8), 8, 2)
    assert [(s.rows.tolist(), s.cols.tolist()) for s in plan.steps] == [
        ([0, 8, 16], [0]), ([0, 6, 9], [0])
    ]  # fmt: skip


def test_calls_of_the_default_windows():
    """1024² at the published sizes: 25 windows a step and 36 in the last three; 4096² px: 289 and
    400."""
    config = small_configs.section("sample.windows")
    for px, usual, last in ((1024, 25, 36), (4096, 289, 400), (16384, 4225, 5625)):
        plan = windows.plan_windows(config, (px // 4, px // 4), 64, 12)
        assert [step.count for step in plan.steps] == [usual] * 9 + [last] * 3


def test_tapered_shares_are_highest_in_the_middle():
    plan = windows.plan_windows(config_of(weights="tapered", stride=4), (32, 32), 8, 1)
    inner = plan.steps[0].row_weights[3]
    np.testing.assert_allclose(inner, inner[::-1], rtol=1e-6)
    assert np.all(np.diff(inner[:4]) > 0)
    assert inner.min() > 0


@pytest.mark.parametrize(
    ("config", "canvas", "message"),
    [
        (config_of(), (7, 20), "must hold a whole window, got canvas=7×20, window=8"),
        (config_of("offset"), (20, 7), "must hold a whole window, got canvas=20×7, window=8"),
        (config_of(stride=0), (16, 16), r"stride must lie in \[1, window\], got stride=0"),
        (config_of(stride=9), (16, 16), "got stride=9, window=8"),
        (config_of("offset", max_offset=5), (16, 16), "got max_offset=5, window=8"),
        (config_of("offset", max_offset=-1), (16, 16), "got max_offset=-1, window=8"),
        (config_of(border="wrap"), (16, 16), "border=wrap must come with mode=offset"),
        (
            config_of("offset", last=windows.LastSteps(-1, 0.25)),
            (16, 16),
            "must be 0 or more and last.overlap lie in .*, got last.steps=-1, last.overlap=0.25",
        ),
        (
            config_of("offset", last=windows.LastSteps(3, 0.6)),
            (16, 16),
            r"last.overlap lie in \[0, 0.5\], got last.steps=3, last.overlap=0.6",
        ),
        (config_of("offset", border="wrap"), (16, 20), "whole windows, got canvas=16×20, window=8"),
    ],
)
def test_what_does_not_fit_is_refused(config, canvas, message):
    with pytest.raises(ValueError, match=message):
        windows.plan_windows(config, canvas, 8, 3)


@given(drawn=st.one_of(plans("overlap"), plans("paper"), plans("offset"), plans("offset", "wrap")))
@settings(max_examples=60, deadline=None)
def test_borders_are_where_pixels_are_seen_by_other_windows(drawn):
    """Neighbours are on one side of a border where the same windows see both, a pixel apart."""
    _, plan = drawn
    for step in range(plan.num_steps):
        for axis, starts in enumerate((plan.steps[step].rows, plan.steps[step].cols)):
            seen = [set() for _ in range(plan.field[axis])]
            for number, start in enumerate(starts):
                for i in range(plan.window):
                    seen[(start + i) % plan.field[axis]].add((number, i))
            follow = lambda pixel: {(number, i + 1) for number, i in pixel}
            expected = [k for k in range(1, plan.canvas[axis]) if follow(seen[k - 1]) != seen[k]]
            assert plan.borders(step)[axis].tolist() == expected


@pytest.mark.parametrize(
    ("mode", "max_offset", "steps", "returns"),
    [
        ("overlap", 2, 3, True),
        ("paper", 2, 3, True),
        ("offset", 0, 3, True),
        ("offset", 3, 3, False),
        ("overlap", 2, 1, False),
        # 9 places for 12 steps.
        ("offset", 1, 12, True),
    ],
)
def test_a_plan_says_whether_windows_return(mode, max_offset, steps, returns):
    plan = windows.plan_windows(config_of(mode, max_offset=max_offset), (20, 24), 8, steps)
    seen = [{tuple(corner) for corner in step.corners()} for step in plan.steps]
    comes_again = any(seen[i] == seen[j] for i in range(steps) for j in range(i))
    assert plan.returns == comes_again == returns
