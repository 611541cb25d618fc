"""Curves of a study: what downstream models gain from synthetic images.

`study/results.json`, optional, has `rows` such as `{"task": "patches", "model": "linear",
"mixture": "real + synthetic", "fraction": 0.1, "auc": {"mean": 0.81, "low": 0.79, "high": 0.83}}`.
`fraction` is the part of the real data that was used, `low` and `high` end the confidence interval
of `mean`.
"""

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, curves, tables


def part(workdir: pathlib.Path) -> str:
    """A chart for every task and model, a curve for every mixture; empty without a study."""
    path = workdir / "study" / "results.json"
    stored = atomic.read_json(path)["rows"] if path.exists() else []
    rows = [row | row["auc"] for row in stored]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((str(row["task"]), str(row["model"])), []).append(row)
    if not groups:
        return ""
    figures = "".join(_figure(task, model, of_task) for (task, model), of_task in groups.items())
    return (
        '<p class="hint">AUC of classifiers on held-out real data, with confidence intervals, by '
        "the share of the real training data they were trained on, with and without generated data."
        f'</p><div class="studies">{figures}</div>'
        f"<details><summary>All values</summary>{_table(rows)}</details>"
    )


def _figure(task: str, model: str, rows: Sequence[Mapping[str, Any]]) -> str:
    points = [
        curves.Row(r["fraction"], r["mean"], r["low"], r["high"], str(r["mixture"])) for r in rows
    ]
    label = f"AUC of {task} by {model}"
    chart = curves.chart(points, label=label, x_title="share of the real data")
    return (
        f"<figure><figcaption><b>{html.escape(task)}</b> {html.escape(model)}</figcaption>"
        f"{chart}</figure>"
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names, numbers = ("task", "model", "mixture"), ("fraction", "mean", "low", "high")
    titles = ("task", "classifier", "training data", "share of real data", "AUC", "from", "to")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = "".join(
        "<tr>"
        + "".join(f"<th>{html.escape(str(row[name]))}</th>" for name in names)
        + "".join(f"<td>{charts.number(row[name])}</td>" for name in numbers)
        + "</tr>"
        for row in rows
    )
    return tables.scrollable(
        "AUC of all classifiers",
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
    )
