"""Drawn patches and large images against real ones, by every network of features, as a table.

Keys of `evaluate/results.json`, each optional: `patches`, by network `{"extraction": …, "frechet":
estimate, "frechet_real_against_real": estimate, "fidelity": {"precision": …}, "kid": estimate,
"cases": 9}`, and `large`, by network `{"crops": estimate, "whole": estimate}`. An estimate has
`low`, `high` and `corrected` or `value`; where these are None, `interval` says why. A number alone
will do.
"""

import html
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.evaluation.metrics import intervals
from ssldiff_jax.report import charts, figures

_ROWS = {
    "Fréchet distance": ("patches", "frechet"),
    "the same, one half of the real patches against the other": (
        "patches",
        "frechet_real_against_real",
    ),
    "KID": ("patches", "kid"),
    "precision": ("patches", "fidelity", "precision"),
    "recall": ("patches", "fidelity", "recall"),
    "density": ("patches", "fidelity", "density"),
    "coverage": ("patches", "fidelity", "coverage"),
    "large images, crops": ("large", "crops"),
    "the same, the real crops of these places": ("large", "crops_real_moved"),
    "large images, whole": ("large", "whole"),
}
_HINT = (
    "Patches drawn alone, and large images, against held-out ones. Of distances 0 is ideal, of "
    "the others 1. In small print 95 % intervals. Distances are less the bias that samples of "
    "finite size give them; where vectors are too few to tell it, they are uncorrected, and to be "
    "compared only with those of as many vectors. Intervals are of the cases held out; where these "
    "are fewer than {blocks}, they are named above, and figures of others may well lie elsewhere."
)


def part(metrics: Mapping[str, Any]) -> str:
    """A row for every figure, a column for every network; empty without either key."""
    names = list(dict.fromkeys(n for key in ("patches", "large") for n in metrics[key] or {}))
    if not names:
        return ""
    rows = []
    for title, (key, *path) in _ROWS.items():
        found = [_at((metrics[key] or {}).get(name), path) for name in names]
        if any(value is not None for value in found):
            cells = "".join(f"<td>{_estimate(value)}</td>" for value in found)
            rows.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{_head(name, metrics["patches"])}</th>' for name in names)
    return (
        f'<p class="hint">{_HINT.format(blocks=intervals.BLOCKS)}</p>'
        '<div class="wide" tabindex="0" role="region" aria-label="figures by network">'
        f'<table class="networks"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _head(name: str, patches: Mapping[str, Any] | None) -> str:
    told = _at((patches or {}).get(name), ["extraction"])
    said = f" <small>{told['dim']:,} numbers</small>" if told else ""
    cases = _at((patches or {}).get(name), ["cases"])
    if cases is not None and cases < intervals.BLOCKS:
        said += f" <small>{cases} {'case' if cases == 1 else 'cases'}</small>"
    return html.escape(name) + said


def _estimate(value: Any) -> str:
    """A figure, and its interval in small print or why it has none."""
    if not isinstance(value, Mapping):
        return charts.number(value)
    said = figures.said_estimate(value, charts.number, "<small>{} … {}</small>")
    parted = f" <small>{html.escape(value['parted'])}</small>" if "parted" in value else ""
    return f"{said}{parted}"
