"""Whether large images have the shapes of their regions in their places, as a table.

Of `evaluate/results.json` it shows `structure`: by measure and figure, estimates of the `generated`
images, of `real_moved` regions and of `other_region`s.
"""

import html
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.report import charts, figures, tables

_COLUMNS = {
    "generated": "generated images",
    "real_moved": "real ones moved by 8 px",
    "other_region": "other regions (chance)",
}
_TITLES = {
    "class_iou": "class maps, intersection over union",
    "ms_ssim": "MS-SSIM of grey squares",
    "edges": "edges, correlation",
    "nuclei": "nuclei in cells, correlation",
    "vegetation": "vegetation index, correlation",
    "bands": "band, correlation in squares of 8 px",
    "power": "power over that of the real image",
}
_RATIOS = {"count_ratio": "nuclei over those of the real image"}
"""Of figures that are no correlations."""
_HINT = (
    "Whether large images show what their regions show, in the same place to within 8 px; none of "
    "it takes a network that was trained with the generator. 1 is ideal. Real regions moved by "
    "8 px show what a figure becomes where all is real and nothing quite in its place. In small "
    "print 95 % intervals, by {method}."
)


def part(metrics: Mapping[str, Any]) -> str:
    """A row for every figure; empty where there are none."""
    structure = metrics["structure"]
    if not structure:
        return ""
    rows = [
        _row(_title(name, figure), sides)
        for name in _TITLES
        for figure, sides in structure.get(name, {}).items()
    ]
    head = "".join(f'<th scope="col">{title}</th>' for title in _COLUMNS.values())
    table = (
        f'<table class="networks"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    method = next(iter(structure["edges"].values()))["generated"]["interval"]
    hint = _HINT.format(method=html.escape(method.removeprefix("95%, ")))
    return f'<p class="hint">{hint}</p>' + tables.scrollable("structure of large images", table)


def _title(name: str, figure: str) -> str:
    said = _RATIOS.get(figure) or f"{_TITLES[name]}: {figure.replace('_', ' ')}"
    return html.escape(said.removesuffix(": ms ssim"))


def _row(title: str, sides: Mapping[str, Any]) -> str:
    cells = "".join(f"<td>{_estimate(sides[column])}</td>" for column in _COLUMNS)
    return f'<tr><th scope="row">{title}</th>{cells}</tr>'


def _estimate(value: Mapping[str, Any]) -> str:
    return figures.said_estimate(value, charts.number, "<small>{} … {}</small>")
