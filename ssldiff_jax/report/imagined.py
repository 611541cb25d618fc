"""The part of the page on images that no reference gave."""

import html
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.report import charts, metrics, pictures
from ssldiff_jax.report import figures as figures_lib

_FIGURES = {
    "frechet_of_cells": "Fréchet distance of cells",
    "frechet_of_grids": "Fréchet distance of grids",
    "precision": "precision",
    "recall": "recall",
    "neighbours": "neighbours’ correlation, over real",
    "nearest": "distance to training, over real",
    "agreement": "agreement with labels",
}
_QUADRANTS = {
    "": "all",
    "north-west": '<abbr title="north-west">NW</abbr>',
    "north-east": '<abbr title="north-east">NE</abbr>',
    "south-west": '<abbr title="south-west">SW</abbr>',
    "south-east": '<abbr title="south-east">SE</abbr>',
}
_PART = re.compile(r"(.+?)(?: ((?:north|south)-(?:west|east)))? (\d+\.\d+)")


def part(workdir: pathlib.Path, folder: pathlib.Path) -> str:
    """Images with what was asked for, and the figures of the prior; empty where there is none."""
    told, prior = workdir / "imagine" / "results.json", workdir / "prior" / "results.json"
    if not (told.exists() and prior.exists()):
        return ""
    found = metrics.read(told)
    figures = []
    for i, asked in enumerate(found["asked"]):
        picture = pictures.copy(
            workdir / "imagine" / f"image_{i}.png", folder / f"imagined_{i}.png"
        )
        figures.append(
            f"<figure>{picture.img(f'imagined image {i + 1}')}"
            f"<figcaption>{_asked(asked)}</figcaption></figure>"
        )
    hint = (
        "Grids of embeddings drawn by the prior as held-out places are told to be, and images "
        "drawn from these grids: no embedding of a real patch is in them."
    )
    figured = _prior(metrics.read(prior))
    agreement = _agreement(found["agreement"]) if "agreement" in found else ""
    return (
        f'<p class="hint">{hint}</p><div class="gallery">{"".join(figures)}</div>'
        f'<div class="pair uneven"><div>{figured}</div><div>{agreement}</div></div>'
    )


def _asked(text: str) -> str:
    """Parts of classes, in all and in quadrants, as a table; other words as they are."""
    found = [_PART.fullmatch(part) for part in text.split(", ")]
    if not all(found):
        return html.escape(text)
    rows: dict[str, dict[str, str]] = {}
    for part in found:
        name, quadrant, value = part.groups()
        rows.setdefault(name, {})[quadrant or ""] = value
    columns = {
        q: title for q, title in _QUADRANTS.items() if any(q in row for row in rows.values())
    }
    head = "".join(f'<th scope="col">{title}</th>' for title in columns.values())
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{row.get(quadrant, '–')}</td>" for quadrant in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return (
        f'<table class="asked"><thead><tr><th scope="col">asked for</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _prior(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a way of making grids."""
    names = [name for name in _FIGURES if any(name in row for row in results.values())]
    table = _table("grids", {name: _FIGURES[name] for name in names}, results)
    hint = (
        "White embeddings, held out. Distances: 0 is ideal; the others: 1. In small print 95 % "
        "intervals; a dash where grids are too few."
    )
    return f'{table}<p class="hint">{hint}</p>'


def _agreement(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a way of asking."""
    table = _table("told", {name: name for name in next(iter(found.values()))}, found)
    return (
        f'{table}<p class="hint">Correlation of asked and shown parts of every class in the '
        "quadrants of images, by a judge of pixels that learnt from real ones.</p>"
    )


def _figure(value: float | Mapping[str, Any] | None) -> str:
    """Three decimals where three digits would be more: correlations near 0 are noise."""
    if isinstance(value, Mapping):
        return figures_lib.said_estimate(value, charts.number, "<small>{} … {}</small>")
    if value is None or not abs(value) < 1:
        return charts.number(value)
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # and no minus before zero


def _table(what: str, columns: Mapping[str, str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by name, under the titles of their figures; a dash for what a row has not."""
    head = "".join(f"<td>{html.escape(title)}</td>" for title in columns.values())
    cells = lambda row: "".join(f"<td>{_figure(row.get(name))}</td>" for name in columns)
    body = "".join(f"<tr><th>{html.escape(n)}</th>{cells(row)}</tr>" for n, row in rows.items())
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="figures of {what}"><table>'
        f"<thead><tr><th>{what}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
