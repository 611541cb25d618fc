"""Classes of generated patches against those of the real patches they come from, as a table.

`evaluate/confusion.json`, optional: `{"labels": ["stroma", …], "counts": [[30, 2], [1, 27]],
"accuracy": 0.95, "real": {"accuracy": 0.97}}`; the last is the ceiling. A row of `counts` is
the class of the real patch, a column that of the generated one.
"""

import html
import pathlib
from collections.abc import Sequence

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, tables


def part(workdir: pathlib.Path) -> str:
    """The table of `evaluate/confusion.json`; empty where there is none."""
    path = workdir / "evaluate" / "confusion.json"
    if not path.exists():
        return ""
    results = atomic.read_json(path)
    ceiling = results.get("real", {}).get("accuracy")
    return table(results["labels"], results["counts"], results.get("accuracy"), ceiling)


def table(
    labels: Sequence[str],
    counts: Sequence[Sequence[float]],
    accuracy: float | None = None,
    ceiling: float | None = None,
) -> str:
    """Counts, each tinted by its share of its row.

    Raises ValueError where `counts` is not a square with a row for every label.
    """
    shape = [len(row) for row in counts]
    if shape != [len(labels)] * len(labels):
        raise ValueError(
            f"counts must be {len(labels)} × {len(labels)} for as many labels, "
            f"got rows of lengths {shape}"
        )
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in labels)
    body = "".join(_row(i, str(name), counts[i]) for i, name in enumerate(labels))
    said = (
        "Rows: class of the real patch whose embedding the patch was generated from. Columns: "
        "class that the judge’s features give the generated patch. Percentages are of a row."
    )
    if accuracy is not None:
        real = ""
        if ceiling is not None:
            real = f"; ceiling, real patches classified in the same way: {charts.number(ceiling)}"
        said = f"Class agreement <b>{charts.number(accuracy)}</b>{real}. {said}"
    return f'<p class="hint">{said}</p>' + tables.scrollable(
        "classes of real and generated patches",
        f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
    )


def _row(i: int, name: str, counts: Sequence[float]) -> str:
    total = sum(counts)
    cells = []
    for j, count in enumerate(counts):
        share = count / total if total else 0.0
        kind = ' class="right"' if i == j else ""
        cells.append(
            # At most half of the accent's colour, so that numbers on it can be read.
            f'<td{kind} style="--share:{50 * share:.1f}%">{count:,}'
            f"<small>{100 * share:.0f} %</small></td>"
        )
    return f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>'
