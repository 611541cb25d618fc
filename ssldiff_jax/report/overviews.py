"""The slides of a run: where tissue is, what is held out, and files that could not be used."""

import html
import json
import pathlib
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import pictures, training, units


def part(workdir: pathlib.Path, folder: pathlib.Path, mpp: float | None) -> str:
    """Overviews of slides with the held-out part, and quarantined files; empty without either."""
    source = workdir / "patches"
    facts = source / "done.json"
    names = atomic.read_json(facts).get("facts", {}).get("slides", {}) if facts.exists() else {}
    table = training.slides(workdir)
    figures = []
    # By number: as text, 10 comes before 9.
    for path in sorted(source.glob("overview_*.png"), key=_number):
        name = str(names.get(str(_number(path)), path.stem))
        picture = pictures.copy(path, folder / path.name)
        size = _size(table.get(_number(path)))
        figures.append(
            f"<figure>{picture.img(f'overview of {name}')}"
            f"<figcaption>{html.escape(name)}{size}</figcaption></figure>"
        )
    skipped = "".join(
        f"<li><b>{html.escape(pathlib.PurePath(s['slide']).name)}</b> {html.escape(s['reason'])}"
        "</li>"
        for s in _quarantined(source / "quarantine.jsonl")
    )
    body = f'{_hint(mpp)}<div class="slides">{"".join(figures)}</div>' if figures else ""
    if skipped:
        body += f'<h4>Files that could not be used</h4><ul class="skipped">{skipped}</ul>'
    return body


def _hint(mpp: float | None) -> str:
    at = units.resolution(mpp)
    read = f" Patches are read at {at}." if at else ""
    return (
        '<p class="hint">Pale: no tissue, or nothing to train on. <b class="held">Blue</b>: held '
        f'out of training. <b class="ref">Red</b>: the regions above.{read}</p>'
    )


def _size(row: dict[str, str] | None) -> str:
    """Size and resolution of a slide by its line of `slides.csv`."""
    if row is None:
        return ""
    mpp = float(row["mpp"])
    size = units.size(int(row["height"]), int(row["width"]), mpp)
    return f" <small>{size}; {units.resolution(mpp)}</small>"


def _quarantined(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in path.read_text("utf-8").splitlines()] if path.exists() else []


def _number(path: pathlib.Path) -> int:
    return int(path.stem.rpartition("_")[2])
