"""Generated patches and large images against real ones, by every feature network, as a table.

Keys of `evaluate/results.json`, each optional: `patches`, by network `{"extraction": …, "frechet":
estimate, "frechet_of_real_halves": estimate, "precision_recall": {"precision": …}, "kid": estimate,
"cases": 9}`, and `large_image_frechet`, by network `{"crops": estimate, "whole": estimate}`. An
estimate has `low`, `high` and `corrected` or `value`; where these are None, `interval` says why. A
number alone will do.
"""

import html
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.evaluation.metrics import intervals
from ssldiff_jax.report import charts, figures, tables

_ROWS = {
    "cell retrieval, top 1, of networks from outside the run": ("outside", "cell_retrieval_top1"),
    "Fréchet distance of single patches": ("patches", "frechet"),
    "floor: one half of the real patches against the other": (
        "patches",
        "frechet_of_real_halves",
    ),
    "KID of single patches": ("patches", "kid"),
    "precision of single patches": ("patches", "precision_recall", "precision"),
    "recall of single patches": ("patches", "precision_recall", "recall"),
    "density of single patches": ("patches", "precision_recall", "density"),
    "coverage of single patches": ("patches", "precision_recall", "coverage"),
    "Fréchet distance of crops of large images": ("large_image_frechet", "crops"),
    "floor: real crops at the same places": ("large_image_frechet", "crops_real_shifted"),
    "Fréchet distance of whole large images": ("large_image_frechet", "whole"),
}
_HINT = (
    "Generated patches and large images against held-out real ones, by networks that turn an image "
    "into numbers. Of distances (Fréchet, KID) 0 is ideal, of the other metrics 1. In small print "
    "95 % intervals. Distances are corrected for the bias of small samples. Where there are too "
    "few images for that, the uncorrected value is shown: compare it only with values of as many "
    "images. Intervals hold for the held-out cases of this run; with fewer than {blocks} cases, "
    "which the column then names, other cases may give other values."
)


def part(metrics: Mapping[str, Any]) -> str:
    """A row for every figure, a column for every network; empty without either key."""
    names = list(
        dict.fromkeys(n for key in ("patches", "large_image_frechet") for n in metrics[key] or {})
    )
    if not names:
        return ""
    rows = []
    for title, (key, *path) in _ROWS.items():
        estimates = [_at((metrics.get(key) or {}).get(name), path) for name in names]
        if any(value is not None for value in estimates):
            cells = "".join(f"<td>{_estimate(value)}</td>" for value in estimates)
            rows.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{_head(name, metrics["patches"])}</th>' for name in names)
    return f'<p class="hint">{_HINT.format(blocks=intervals.BLOCKS)}</p>' + tables.scrollable(
        "metrics by feature network",
        f'<table class="networks"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
    )


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _head(name: str, patches: Mapping[str, Any] | None) -> str:
    extraction = _at((patches or {}).get(name), ["extraction"])
    said = f" <small>{extraction['dim']:,} numbers</small>" if extraction else ""
    cases = _at((patches or {}).get(name), ["cases"])
    # Of 5 cases that make half of what features are, 95 % intervals held the distance of all cases
    # in 55 % of 60 simulations.
    if cases is not None and cases < intervals.BLOCKS:
        said += f" <small>{cases} {'case' if cases == 1 else 'cases'}</small>"
    return html.escape(name) + said


def _estimate(value: Any) -> str:
    """A figure, and its interval in small print or why it has none."""
    if not isinstance(value, Mapping):
        return charts.number(value)
    said = figures.said_estimate(value, charts.number, "<small>{} … {}</small>")
    parted = f" <small>{html.escape(value['split_by'])}</small>" if "split_by" in value else ""
    return f"{said}{parted}"
