"""The part of the page on images that no reference gave."""

import html
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.evaluation.report import charts, metrics, pictures

_FIGURES = {
    "cell_fd": "Fréchet distance of cells",
    "grid_fd": "of whole grids",
    "precision": "precision",
    "recall": "recall",
    "neighbours": "neighbours’ correlation, over real",
    "nearest": "distance to training, over real",
    "agreement": "agreement with labels",
}


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
            f"<figure>{picture.img(asked)}<figcaption>{html.escape(asked)}</figcaption></figure>"
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


def _prior(results: Mapping[str, Mapping[str, float]]) -> str:
    """One row a way of making grids."""
    names = [name for name in _FIGURES if any(name in row for row in results.values())]
    table = _table("grids", {name: _FIGURES[name] for name in names}, results)
    hint = "White embeddings, held out. Distances: 0 is ideal; the others: 1."
    return f'{table}<p class="hint">{hint}</p>'


def _agreement(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a way of asking."""
    table = _table("told", {name: name for name in next(iter(found.values()))}, found)
    return (
        f'{table}<p class="hint">Correlation of asked and shown parts of every class in the '
        "quadrants of images, by a judge of pixels that learnt from real ones.</p>"
    )


def _table(what: str, columns: Mapping[str, str], rows: Mapping[str, Mapping[str, float]]) -> str:
    """Rows by name, under the titles of their figures; a dash for what a row has not."""
    head = "".join(f"<td>{html.escape(title)}</td>" for title in columns.values())
    cells = lambda row: "".join(f"<td>{charts.number(row.get(name))}</td>" for name in columns)
    body = "".join(f"<tr><th>{html.escape(n)}</th>{cells(row)}</tr>" for n, row in rows.items())
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="figures of {what}"><table>'
        f"<thead><tr><th>{what}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
