"""Curves with bands of confidence, as SVG text with a legend."""

import dataclasses
import html
from collections.abc import Sequence

from ssldiff_jax.report import charts

_LOG_SPAN = 20  # a wider range of x is drawn on a log axis


@dataclasses.dataclass(frozen=True)
class Row:
    """A point of a curve: its mean, and where the band begins and ends."""

    x: float
    mean: float
    low: float
    high: float
    series: str


def chart(rows: Sequence[Row], *, label: str, x_title: str) -> str:
    """One curve a series, in the order they first occur; `label` is what a screen reader says.

    A series of one point is a marker with a bar. Raises ValueError where there is no row.
    """
    if not rows:
        raise ValueError("a chart must have at least one row, got none")
    series = list(dict.fromkeys(row.series for row in rows))
    x, y = _scales(rows)
    # Points come in any order; a path joins them as they come.
    curves = "".join(
        _curve(i, sorted((r for r in rows if r.series == name), key=lambda r: r.x), x, y)
        for i, name in enumerate(series)
    )
    legend = "".join(
        f'<li class="series s{i % 6}"><svg viewBox="0 0 28 10" aria-hidden="true">'
        f'<path class="line" d="M0,5H28"/>{_marker(i, 14, 5, "")}</svg>{html.escape(name)}</li>'
        for i, name in enumerate(series)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {charts.CHART_WIDTH} {charts.CHART_HEIGHT}" role="img" '
        f'aria-label="{html.escape(label)}">{charts.axes(x, y, html.escape(x_title))}{curves}</svg>'
        f'<ul class="legend-list">{legend}</ul>'
    )


def _scales(rows: Sequence[Row]) -> tuple[charts.Scale, charts.Scale]:
    xs = [row.x for row in rows]
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    margin = 0.04 * (high - low)
    log = min(xs) > 0 and max(xs) / min(xs) >= _LOG_SPAN
    left, top = charts.LEFT, charts.TOP
    return (
        charts.Scale(min(xs), max(xs), left + 8, left + charts.WIDTH - 8, log),
        charts.Scale(low - margin, high + margin, top + charts.HEIGHT, top),
    )


def _curve(i: int, rows: Sequence[Row], x: charts.Scale, y: charts.Scale) -> str:

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "L".join(f"{x(at):.2f},{y(value):.2f}" for at, value in points)

    # There along the upper ends, back along the lower ones.
    band = path([(r.x, r.high) for r in rows] + [(r.x, r.low) for r in reversed(rows)])
    parts = [f'<path class="band" d="M{band}Z"/>']
    if len(rows) == 1:
        parts = [f'<path class="line" d="M{band}"/>']
    parts.append(f'<path class="line" d="M{path([(r.x, r.mean) for r in rows])}"/>')
    number = charts.number
    for r in rows:
        said = f"{r.series}, {number(r.x)}: {number(r.mean)} ({number(r.low)} to {number(r.high)})"
        parts.append(_marker(i, x(r.x), y(r.mean), said))
    return f'<g class="series s{i % 6}">{"".join(parts)}</g>'


def _marker(i: int, x: float, y: float, said: str) -> str:
    """Circles, squares and diamonds: series differ in more than colour."""
    title = f"<title>{html.escape(said)}</title>" if said else ""
    if i % 3 == 0:
        return f'<circle class="dot" cx="{x:.2f}" cy="{y:.2f}" r="3.2">{title}</circle>'
    turn = f' transform="rotate(45 {x:.2f} {y:.2f})"' if i % 3 == 2 else ""
    return (
        f'<rect class="dot" x="{x - 2.8:.2f}" y="{y - 2.8:.2f}" width="5.6" height="5.6"{turn}>'
        f"{title}</rect>"
    )
