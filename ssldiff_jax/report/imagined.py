"""Images and grids without a real counterpart: generated from labels or text by the prior."""

import html
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.report import charts, goals, metrics, pictures, tables, units
from ssldiff_jax.report import figures as figures_lib

_FIGURES = {
    "frechet_of_cells": "Fréchet distance of cells",
    "frechet_of_grids": "Fréchet distance of grids",
    "precision": "precision",
    "recall": "recall",
    "neighbour_correlation": "correlation of neighbouring cells, divided by that of real grids",
    "nearest_distance": "distance to the nearest training grid, divided by that of held-out grids",
    "agreement": "correlation with the labels",
}
_WAYS = {
    "prior": "prior",
    "prior, conditions shuffled": "prior, conditioned on another grid’s labels",
    "prior, conditioned on text alone": "prior, conditioned on text alone",
    "independent cells": "baseline: training cells in random order",
    "nearest training grid": "baseline: training grid with the nearest labels",
    "real": "real held-out grids",
}
_OF_TOKENS = {
    "frechet_of_cells": "Fréchet distance of tokens",
    "frechet_of_grids": "Fréchet distance of a cell’s tokens together",
    "neighbour_correlation": "correlation of neighbouring tokens, divided by that of real ones",
    "nearest_distance": "distance to the nearest training patch, divided by that of held-out ones",
    "cosine": "cosine of the mean of tokens with that of the real ones",
}
_WAYS_OF_TOKENS = {
    "tokens": "sampled from the embedding",
    "tokens, embeddings shuffled": "sampled from another patch’s embedding",
    "embedding at every token": "baseline: the embedding at every token",
    "nearest training patch": "baseline: tokens of the training patch with the nearest embedding",
    "real": "real held-out patches",
}
_CONDITIONS = {
    "all_conditions": "generated from all conditions",
    "shuffled_conditions": "chance: against the labels of another image",
    "real_pixels": "ceiling: real images",
    "labels_alone": "generated from labels alone",
    "labels_shuffled": "chance: from labels alone, against the labels of another image",
    "text_alone": "generated from text alone",
    "text_shuffled": "chance: from text alone, against the labels of another image",
    "numbers_alone": "generated from numbers alone",
}
"""Names of rows in results, in words."""
_QUADRANTS = {
    "": "all",
    "north-west": '<abbr title="north-west">NW</abbr>',
    "north-east": '<abbr title="north-east">NE</abbr>',
    "south-west": '<abbr title="south-west">SW</abbr>',
    "south-east": '<abbr title="south-east">SE</abbr>',
}
# "stroma 0.40", "stroma north-west 0.12": as the step writes labels down.
_PART = re.compile(r"(.+?)(?: ((?:north|south)-(?:west|east)))? (\d+\.\d+)")


def images(workdir: pathlib.Path, folder: pathlib.Path, mpp: float | None) -> str:
    """Images with the labels or the text that condition them; empty where there is none."""
    results = workdir / "imagine" / "results.json"
    if not (results.exists() and _prior(workdir).exists()):
        return ""
    figures = []
    for i, asked in enumerate(metrics.read(results)["conditions"]):
        source = workdir / "imagine" / f"image_{i}.png"
        picture = pictures.copy(source, folder / f"imagined_{i}.png")
        size = units.size(*pictures.png_size(source), mpp)
        alt = f"image {i + 1} generated from labels or text"
        figures.append(
            f"<figure>{picture.img(alt)}<figcaption><small>{size}</small> "
            f"{_condition(asked)}</figcaption></figure>"
        )
    hint = (
        "The prior generates a grid of embeddings from the labels or the text of a held-out place, "
        "and the denoiser an image from this grid: no embedding of a real patch is used."
    )
    return f'<p class="hint">{hint}</p><div class="gallery">{"".join(figures)}</div>'


def figures(workdir: pathlib.Path) -> str:
    """Figures of generated grids, and whether images show their labels; empty likewise."""
    results = workdir / "imagine" / "results.json"
    if not (results.exists() and _prior(workdir).exists()):
        return ""
    stored = metrics.read(results)
    # Runs of before intervals were measured have correlations alone.
    plain = {way: {"figures": row} for way, row in stored.get("agreement", {}).items()}
    by_way = stored.get("heard") or plain
    heard = _heard(by_way) if by_way else ""
    grids = _grids(metrics.read(_prior(workdir)))
    tokens = _tokens(workdir / "tokens" / "results.json")
    parts = "".join(f"<div>{part}</div>" for part in (grids, tokens, heard) if part)
    return f'<div class="stack">{parts}</div>'


def _prior(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "prior" / "results.json"


def _condition(text: str) -> str:
    """Parts of classes, in all and in quadrants, as a table; other words as they are."""
    parts = [_PART.fullmatch(part) for part in text.split(", ")]
    if not all(parts):
        return html.escape(text)
    rows: dict[str, dict[str, str]] = {}
    for part in parts:
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
        f'<table class="asked"><thead><tr><th scope="col">condition</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _grids(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a way of making grids."""
    names = [name for name in _FIGURES if any(name in row for row in results.values())]
    rows = {_WAYS.get(name, name): row for name, row in results.items()}
    table = _table("grids of embeddings", {name: _FIGURES[name] for name in names}, rows)
    hint = (
        "Grids of whitened embeddings against held-out real ones. Of distances 0 is ideal, of the "
        "other metrics 1. In small print 95 % intervals; a dash where grids are too few."
    )
    return f'<h3>Generated grids</h3>{table}<p class="hint">{hint}</p>'


def _tokens(path: pathlib.Path) -> str:
    """One row a way of making tokens; empty where a cell has one."""
    if not path.exists():
        return ""
    rows = {_WAYS_OF_TOKENS.get(name, name): row for name, row in metrics.read(path).items()}
    hint = (
        "Tokens of cells, sampled from the embedding of each, against those of held-out patches. "
        "Of distances 0 is ideal, of the other metrics 1. In small print 95 % intervals; a dash "
        "where patches are too few."
    )
    return f'<h3>Tokens of cells</h3>{_table("tokens", _OF_TOKENS, rows)}<p class="hint">{hint}</p>'


def _heard(by_way: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a way of conditioning, the ceiling and chance among them."""
    rows = {_CONDITIONS.get(way, way): row["figures"] for way, row in by_way.items()}
    names = dict.fromkeys(name for row in rows.values() for name in row)
    table = _table("images", {name: name for name in names}, rows)
    goal = next(row.goal for row in goals.ROWS if "agreement.all_conditions" in row.judge)
    hint = (
        "Correlation between the share of a class in the condition and its share in the image, "
        "over quadrants of images, as a classifier of pixels that was trained on real images finds "
        "it; of what no pixel shows, between numbers of the condition and those that a regression "
        "reads in generated grids of embeddings. Retrieved: how often what an image shows is "
        "nearest to its own condition among ten; chance is 10 %. Texts worded from labels are in "
        "wordings that training never had. In small print 95 % intervals. Goal: correlations of at "
        f"least {goal.low:g} from all conditions."
    )
    return f'<h3>How much of a condition is heard</h3>{table}<p class="hint">{hint}</p>'


def _figure(value: float | Mapping[str, Any] | None) -> str:
    """Three decimals where three digits would be more: correlations near 0 are noise."""
    if isinstance(value, Mapping):
        return figures_lib.said_estimate(value, charts.number, "<small>{} … {}</small>")
    if value is None or not abs(value) < 1:
        return charts.number(value)
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # and no minus before zero


def _table(what: str, columns: Mapping[str, str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by name, under the titles of their figures; a dash for what a row has not."""
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in columns.values())
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{_figure(row.get(column))}</td>" for column in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return tables.scrollable(
        f"figures of {what}",
        f'<table class="plain"><thead><tr><th scope="col">{what}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
    )
