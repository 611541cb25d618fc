"""Charts: scales do the sums right, lines follow the data, numbers of a map can be read."""

import itertools
import re

import numpy as np
import pytest

from ssldiff_jax.report import charts, curves
from tests.report import test_parts, test_report

HOSTILE, is_whole = test_report.HOSTILE, test_parts.is_whole


@pytest.mark.parametrize("log", [False, True])
def test_scale_ends_and_order(log):
    scale = charts.Scale(0.01, 10.0, 200.0, 20.0, log)
    assert scale(0.01) == 200.0
    assert scale(10.0) == pytest.approx(20.0)
    drawn = [scale(v) for v in np.geomspace(0.01, 10, 30)]
    assert all(a > b for a, b in itertools.pairwise(drawn))
    middle = np.sqrt(0.01 * 10) if log else (0.01 + 10) / 2
    assert scale(middle) == pytest.approx(110.0)
    assert all(0.01 <= tick <= 10 for tick in scale.ticks())
    assert 3 <= len(scale.ticks()) <= 7


def test_ticks_are_round():
    assert charts.Scale(0, 2500, 0, 1).ticks() == [0, 500, 1000, 1500, 2000, 2500]
    assert charts.Scale(0.01, 10, 0, 1, log=True).ticks() == pytest.approx(
        [0.01, 0.03, 0.1, 0.3, 1, 3, 10]
    )


def path_of(points):
    path = re.search(r'class="line raw" d="M([^"]*)"', charts.line_chart(points, "loss")).group(1)
    return np.array([[float(v) for v in pair.split(",")] for pair in path.split("L")])


def test_line_follows_the_data():
    points = [(step, 1000.0 / step) for step in range(10, 5000, 10)]
    xy = path_of(points)
    assert len(xy) == len(points)
    assert (np.diff(xy[:, 0]) > 0).all()
    assert (np.diff(xy[:, 1]) >= 0).all()  # a falling loss falls on the page: y grows downwards
    left, right, top, bottom = 46, 396, 10, 160
    np.testing.assert_allclose(xy[[0, -1]], [[left, top], [right, bottom]], atol=0.01)


def test_long_series_keep_their_end():
    xy = path_of([(step, float(step)) for step in range(1, 5003)])
    assert len(xy) <= 1001
    assert xy[-1, 0] == 396


def test_flat_and_single_points_are_shown():
    assert np.isfinite(path_of([(1, 0.0)])).all()
    assert np.isfinite(path_of([(1, 2.0), (2, 2.0)])).all()


def test_after_a_resume_the_last_line_counts():
    lines = [{"step": s, "loss": v} for s, v in ((1, 5.0), (2, 4.0), (3, 9.0), (2, 3.0), (3, 2.0))]
    assert charts.loss_points(lines) == [(1, 5.0), (2, 3.0), (3, 2.0)]
    assert charts.loss_points([{"step": 1, "loss": float("nan")}, {"step": 2, "lr": 1}]) == []


def test_map_colours_rise_in_lightness():
    lightness = [np.dot(charts.colour(s), (0.2126, 0.7152, 0.0722)) for s in np.linspace(0, 1, 50)]
    assert (np.diff(lightness) > 0).all()
    drawn = charts.heat_map(np.array([[0.25, 0.5, 0.75]]), 0.25, 0.75)
    assert drawn.count("data-value") == 3
    assert "row 1, column 3: 0.750" in drawn


def test_curves_have_their_bands():
    rows = [
        curves.Row(x, mean, mean - 0.1, mean + 0.1, series)
        for series, lift in ((HOSTILE, 0.0), ("b", 0.2))
        for x, mean in ((0.01, 0.5 + lift), (1.0, 0.7 + lift), (0.1, 0.6 + lift))
    ]
    text = curves.chart(rows, label="a study", x_title="fraction")
    assert is_whole(text)
    assert HOSTILE not in text
    bands = re.findall(r'class="band" d="M([^"]*)Z"', text)
    lines = re.findall(r'class="line" d="M([\d.,L]*)"', text)
    assert (len(bands), len(lines)) == (2, 2)
    for band, line in zip(bands, lines, strict=True):
        outline = np.array([[float(v) for v in p.split(",")] for p in band.split("L")])
        middle = np.array([[float(v) for v in p.split(",")] for p in line.split("L")])
        assert (np.diff(middle[:, 0]) > 0).all()
        np.testing.assert_allclose(np.diff(middle[:, 0]), np.diff(middle[:, 0])[0], atol=0.02)
        above, below = outline[:3, 1], outline[:2:-1, 1]
        np.testing.assert_allclose((above + below) / 2, middle[:, 1], atol=0.02)
        assert (above < below).all()
    with pytest.raises(ValueError, match="at least one row, got none"):
        curves.chart([], label="", x_title="")


def test_a_single_point_is_shown():
    text = curves.chart([curves.Row(1, 0.5, 0.5, 0.5, "a")], label="one", x_title="x")
    assert "nan" not in text
    assert text.count('class="dot"') == 2  # in the chart and in the legend


def test_numbers_of_a_map_can_be_read_on_its_colours():
    """Contrast of WCAG 2.2 with its own curve of sRGB: text needs 4.5."""
    curve = lambda c: c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    light = lambda rgb: np.dot([curve(c / 255) for c in rgb], (0.2126, 0.7152, 0.0722))
    drawn = charts.heat_map(np.linspace(0, 1, 101)[:, None], 0, 1)
    inks = re.findall('<text [^>]*fill="#(...)"', drawn)
    grounds = [tuple(map(int, c.split(", "))) for c in re.findall(r'fill="rgb\((.*?)\)"', drawn)]
    assert len(inks) == len(grounds) == 101
    for ink, ground in zip(inks, grounds, strict=True):
        one, two = sorted((light([int(c * 2, 16) for c in ink]), light(ground)))
        assert (two + 0.05) / (one + 0.05) >= 4.5
