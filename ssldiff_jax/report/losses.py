"""Training curves: the loss as logged, smoothed over it, and the denoiser's held-out loss.

`STAGE/metrics.jsonl`, optional, has a line for each logged step: `{"step": 20, "loss": 0.4}`. What
`evaluate/results.json` and the steps of `watch/results.json` say under `denoising_loss` are points
of the denoiser's chart: `{"held_out": {"value": 0.3}, "training": {"value": 0.29}}`.
"""

import pathlib
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, training

_SMOOTHED = 0.05
"""The part of the logged values that one smoothed value is the mean of."""
_LEAST = 5  # values: a mean of fewer smooths nothing
_WORTH = 3 * _LEAST  # values: a shorter curve is shown as it is


def part(workdir: pathlib.Path) -> str:
    """A chart for every model that was trained in `workdir`; empty without one."""
    figures = [_figure(name, workdir / name / "metrics.jsonl") for name in training.MODELS]
    shown = "".join(figures)
    if not shown:
        return ""
    hint = (
        "Thin line: the training loss of one batch, at every step that was logged. Thick line: "
        "smoothed, each value the mean of the logged losses around it, as many as stand below "
        "the chart. Dashed, with a dot for every checkpoint that was evaluated: the loss of "
        "held-out patches by the averaged weights. Losses of different models are of different "
        "kinds."
    )
    return f'<p class="hint">{hint}</p><div class="losses">{shown}</div>'


def window(count: int) -> int:
    """How many of `count` logged values a smoothed one is the mean of, an odd number; 1 where they
    are too few to smooth."""
    if count < _WORTH:
        return 1
    return max(_LEAST, round(_SMOOTHED * count)) // 2 * 2 + 1


def smooth(points: list[tuple[int, float]], count: int) -> list[tuple[int, float]]:
    """Means of `count` values around each; at the ends of those that there are."""
    half = count // 2
    means = []
    for i, (step, _) in enumerate(points):
        # Centred, so that the smooth curve does not lag behind the thin one.
        near = [loss for _, loss in points[max(0, i - half) : i + half + 1]]
        means.append((step, sum(near) / len(near)))
    return means


def held_out_points(workdir: pathlib.Path, last_step: int) -> list[tuple[int, float]]:
    """(step, loss of held-out patches) of every checkpoint that was evaluated, the last one by
    stage `evaluate`."""
    watched = _optional(workdir / "watch" / "results.json").get("steps", [])
    final = {"step": last_step} | _optional(workdir / "evaluate" / "results.json")
    losses = {
        results["step"]: results["denoising_loss"]["held_out"]["value"]
        for results in (*watched, final)
        if "denoising_loss" in results
    }
    return sorted((step, loss) for step, loss in losses.items() if loss is not None)


def _optional(path: pathlib.Path) -> dict[str, Any]:
    return atomic.read_json(path) if path.exists() else {}


def _figure(name: str, path: pathlib.Path) -> str:
    logged = list(training.lines(path))
    points = charts.loss_points(logged)
    if not points:
        return ""
    step, loss = points[-1]
    held_out = held_out_points(path.parents[1], step) if name == "denoiser" else []
    count = window(len(points))
    smoothed = smooth(points, count) if count > 1 else []
    said = "too few values to smooth"
    if smoothed:
        loss = smoothed[-1][1]
        # Losses are logged every so many steps; the mean distance of two of them, times the count.
        steps = (points[-1][0] - points[0][0]) / (len(points) - 1) * count
        said = f"smoothed over {count} logged values, about {steps:,.0f} steps"
    if held_out:
        said += f"; dashed: held-out loss, {charts.number(held_out[-1][1])} at the end"
    chart = charts.line_chart(
        points, f"training loss of the {name} over steps", smoothed=smoothed, held_out=held_out
    )
    return (
        f"<figure><figcaption><b>{name}</b> {charts.number(loss)} "
        f"<small>training loss at step {step:,}{', smoothed' if smoothed else ''}</small>"
        f'</figcaption>{chart}<p class="hint">{said[0].upper()}{said[1:]}.</p></figure>'
    )
