"""Generated patches of every magnification against real ones of it, as a table.

Of `evaluate/results.json` it shows `levels`: by level, by network, figures as `patches` has them;
None of a level with too few held-out patches.
"""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from ssldiff_jax.core import pixel_units
from ssldiff_jax.report import charts, figures, tables

_ROWS = {
    "Fréchet distance of patches": ("frechet",),
    "floor: one half of the real patches against the other": ("frechet_of_real_halves",),
    "KID": ("kid",),
    "precision": ("precision_recall", "precision"),
    "recall": ("precision_recall", "recall"),
}
_HINT = (
    "Patches of every level that the denoiser learnt, a multiple of the first one's scale, "
    "against held-out real ones of that level. Of distances 0 is ideal, of the other metrics 1; in "
    "small print 95 % intervals. Levels have different numbers of real patches: compare a level "
    "with its own floor, and with other runs."
)


def part(metrics: Mapping[str, Any], mpp: float | None) -> str:
    """A row for every figure and network, a column for every level; empty where there is one level.
    `mpp` is that of the first."""
    levels = metrics.get("levels")
    if not levels:
        return ""
    names = list(dict.fromkeys(name for by in levels.values() for name in by or {}))
    rows = [
        f'<tr><th scope="row">{title}, {html.escape(name)}</th>'
        f"{_cells(levels.values(), name, path)}</tr>"
        for name in names
        for title, path in _ROWS.items()
    ]
    head = "".join(f'<th scope="col">{_head(level, mpp)}</th>' for level in levels)
    table = (
        f'<table class="networks"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return f'<p class="hint">{_HINT}</p>' + tables.scrollable("metrics by level", table)


def _head(level: str, mpp: float | None) -> str:
    if mpp is None:
        return f"× {level}"
    return f"× {level} <small>{pixel_units.per_pixel(mpp * float(level))}</small>"


def _cells(levels: Iterable[Any], name: str, path: tuple[str, ...]) -> str:
    return "".join(f"<td>{_estimate((by or {}).get(name), path)}</td>" for by in levels)


def _estimate(values: Any, path: tuple[str, ...]) -> str:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping):
        return charts.number(values)
    return figures.said_estimate(values, charts.number, "<small>{} … {}</small>")
