"""Drawings as SVG text: lines over steps, and numbers on a lattice."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_LOG_SPAN = 30  # a wider range has a log axis
# Three a pixel of the plot: more cannot be told apart.
_MAX_POINTS = 1000
_TEXT_COLS = 12  # a wider map has no room for numbers in its cells
# By WCAG's contrast: (L + 0.05)² = 1.05 · 0.05.
_MIDDLE = 0.18  # relative luminance on which black and white are read equally well

LEFT, TOP, WIDTH, HEIGHT = 46, 10, 350, 150  # px, the plot inside the chart
CHART_WIDTH, CHART_HEIGHT = 412, 190  # px

# Nine of its 256 colours at equal steps; those between are mixed.
_VIRIDIS = (
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)


def number(value: float | None) -> str:
    """Three significant digits; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    # Rounded before its exponent is taken: 999.9 has that of 1000.
    value = float(f"{value:.3g}")
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    text = f"{value:,.{max(0, 2 - exponent)}f}" if -4 <= exponent < 6 else f"{value:.2e}"
    return text.replace("-", "−")


@dataclasses.dataclass(frozen=True)
class Scale:
    """A map from the data range [low, high] to pixels [start, end]; log or linear."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of `value`; `low` is at `start`, `high` at `end`."""
        f = math.log if self.log else float
        span = f(self.high) - f(self.low)
        share = (f(value) - f(self.low)) / span if span else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """At most seven round values within the range."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def _ticks(low: float, high: float) -> list[float]:
    if high <= low:
        return [low]
    # Six steps of it have seven ticks.
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    # Rounding must not lose a tick at an end.
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        marks = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(marks) <= 7:
            return marks
    return marks[:: math.ceil(len(marks) / 7)]


def loss_points(lines: Iterable[Mapping[str, float]], key: str = "loss") -> list[tuple[int, float]]:
    """(step, loss) by rising step; after a resume a step occurs twice, the last one counts."""
    losses = {line["step"]: line[key] for line in lines if key in line}
    return sorted((step, loss) for step, loss in losses.items() if math.isfinite(loss))


def line_chart(
    points: Sequence[tuple[int, float]],
    label: str,
    *,
    smoothed: Sequence[tuple[int, float]] = (),
    held_out: Sequence[tuple[int, float]] = (),
) -> str:
    """Loss over steps; `label`, which must be safe in HTML, is what a screen reader says.

    `smoothed` is laid over `points`, which are thinner then; `held_out` is dashed, with dots. Long
    series are thinned to about 1000 points, the last one kept.
    """
    xs, ys = zip(*points, *held_out, strict=True)
    low, high = min(ys), max(ys)
    log = low > 0 and high / low > _LOG_SPAN
    # A curve should not lie on the axis.
    margin = 0 if log or high == low else 0.04 * (high - low)
    x = Scale(min(xs), max(xs), LEFT, LEFT + WIDTH)
    y = Scale(low - margin, high + margin, TOP + HEIGHT, TOP, log)
    last, loss = (smoothed or points)[-1]
    series = {"raw": points, "smooth": smoothed, "held-out": held_out}
    lines = "".join(
        f'<path class="line {name}" d="{_path(x, y, shown)}"/>'
        for name, shown in series.items()
        if shown
    )
    lines += "".join(_dot(x, y, point, "held-out") for point in held_out)
    kind = "" if smoothed else " alone"
    return (
        f'<svg class="chart{kind}" viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" '
        f'aria-label="{label}">{axes(x, y, "step")}{lines}'
        f"{_dot(x, y, (last, loss), 'end')}</svg>"
    )


def _dot(x: Scale, y: Scale, point: tuple[int, float], name: str) -> str:
    step, loss = point
    return (
        f'<circle class="{name}" cx="{x(step):.2f}" cy="{y(loss):.2f}" r="3">'
        f"<title>step {step:,}: {number(loss)}</title></circle>"
    )


def _path(x: Scale, y: Scale, points: Sequence[tuple[int, float]]) -> str:
    every = math.ceil(len(points) / _MAX_POINTS)
    kept = [*points[:-1:every], points[-1]]
    return "M" + "L".join(f"{x(step):.2f},{y(loss):.2f}" for step, loss in kept)


def axes(x: Scale, y: Scale, title: str) -> str:
    """Lines and ticks of both axes; `title`, of the horizontal one, must be safe in HTML."""
    right, bottom = LEFT + WIDTH, TOP + HEIGHT
    parts = []
    for value in y.ticks():
        at = f"{y(value):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT},{at}H{right}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 7}" y="{at}">{_tick(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT},{bottom}H{right}"/>')
    for value in x.ticks():
        at = f"{x(value):.1f}"
        parts.append(f'<path class="axis" d="M{at},{bottom}v4"/>')
        parts.append(f'<text class="tick x" x="{at}" y="{bottom + 17}">{_tick(value)}</text>')
    parts.append(f'<text class="tick title" x="{right}" y="{bottom + 30}">{title}</text>')
    return "".join(parts)


def _tick(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.4g}k".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def colour(share: float) -> tuple[int, int, int]:
    """Viridis (van der Walt and Smith, 2015) at `share` in [0, 1]; rises in lightness."""
    at = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    i = min(int(at), len(_VIRIDIS) - 2)
    pairs = zip(_VIRIDIS[i], _VIRIDIS[i + 1], strict=True)
    red, green, blue = (round(a + (at - i) * (b - a)) for a, b in pairs)
    return red, green, blue


def _luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2; gamma 2.2 for the curve of sRGB)."""
    weights = (0.2126, 0.7152, 0.0722)
    return sum(w * (c / 255) ** 2.2 for w, c in zip(weights, rgb, strict=True))


def gradient() -> str:
    """The colours of `heat_map` as a CSS gradient, low to high."""
    return f"linear-gradient(90deg,{','.join(f'rgb{c}' for c in _VIRIDIS)})"


def heat_map(values: np.ndarray, low: float, high: float) -> str:
    """A (rows, cols) lattice, one unit square a cell; `low` and `high` end the colours."""
    rows, cols = values.shape
    cells = []
    for (row, col), value in np.ndenumerate(values):
        share = (float(value) - low) / (high - low) if high > low else 0.5
        cells.append(
            f'<rect x="{col}" y="{row}" width="1" height="1" fill="rgb{colour(share)}" '
            f'data-row="{row}" data-col="{col}" data-value="{number(value)}"><title>'
            f"row {row + 1}, column {col + 1}: {number(value)}</title></rect>"
        )
        # Also for readers who see no colours.
        if cols <= _TEXT_COLS:
            ink = "#000" if _luminance(colour(share)) > _MIDDLE else "#fff"
            cells.append(f'<text x="{col + 0.5}" y="{row + 0.5}" fill="{ink}">{value:.2f}</text>')
    return (
        f'<svg class="heat" viewBox="0 0 {cols} {rows}" role="img" '
        f'aria-label="embedding similarity of every cell"><g>{"".join(cells)}</g>'
        '<rect class="mark" width="1" height="1"/></svg>'
    )
