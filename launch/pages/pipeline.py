"""The drawing of the steps that README.md shows: `.assets/pipeline.svg`, made from the table.

`python -m launch.pages.pipeline`, in the root of the repository, renews it.
"""

import dataclasses
import html
import pathlib
from collections.abc import Iterator

from ssldiff_jax.formats import atomic
from ssldiff_jax.stages import table

PATH = pathlib.Path(".assets", "pipeline.svg")

CELL = 126, 88
"""Width and height of a place in the drawing, px."""
BOX = 108, 62
MARGIN = 6
ARROW = "#7d8590"
"""Grey that stands out from a white page and from a dark one."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """Boxes of one colour: what a step is for. Text is dark on a light box, whatever the page."""

    fill: str
    edge: str
    text: str = "#14181d"


DATA = Kind("#dbe9f9", "#4f83c2")
TRAIN = Kind("#fbe5c8", "#c98a2b")
GENERATE = Kind("#d8f0dc", "#3f9b57")
EVALUATE = Kind("#ece2f8", "#8b62c4")


@dataclasses.dataclass(frozen=True)
class Box:
    """A step: its column and row, its colour, and what it does in two short lines."""

    col: float
    row: float
    kind: Kind
    about: tuple[str, str]


BOXES = {
    "patches": Box(0, 1, DATA, ("slides to patches", "one part held out")),
    "judge": Box(1, 0, EVALUATE, ("second encoder,", "for evaluation")),
    "encoder": Box(1, 1, TRAIN, ("self-supervised,", "no labels")),
    "embeddings": Box(2, 1, DATA, ("a vector", "for each patch")),
    "autoencoder": Box(2, 2, TRAIN, ("pixels to latents", "and back")),
    "grids": Box(2, 3, DATA, ("vectors of", "neighbours")),
    "latents": Box(3, 2, DATA, ("latents of the", "same patches")),
    "prior": Box(3, 3, TRAIN, ("words and labels", "to vectors")),
    "tokens": Box(3, 4, TRAIN, ("vector of a cell", "to its tokens")),
    "denoiser": Box(4, 1, TRAIN, ("vector + noise", "to latents")),
    "distill": Box(4, 2, TRAIN, ("the same", "in few steps")),
    "sample": Box(5, 1, GENERATE, ("large images", "from references")),
    "imagine": Box(5, 3, GENERATE, ("large images", "from labels")),
    "evaluate": Box(6, 0, EVALUATE, ("real against", "generated")),
    "report": Box(7, 0, EVALUATE, ("one page", "for a browser")),
}


def arrows() -> Iterator[tuple[str, str]]:
    """Which step reads which, less what another arrow on the way says already."""
    reads = lambda stage: {*stage.needs, *stage.follows}
    needs = {name: reads(table.STAGES[name]) for name in BOXES}

    def all_of(name: str) -> set[str]:
        return needs[name].union(*(all_of(need) for need in needs[name]))

    for name in BOXES:
        indirect = set().union(*(all_of(need) for need in needs[name]))
        for need in sorted(needs[name] - indirect, key=list(BOXES).index):
            yield need, name


def drawing() -> str:
    """The SVG."""
    width = max(box.col for box in BOXES.values()) * CELL[0] + BOX[0] + 2 * MARGIN
    height = max(box.row for box in BOXES.values()) * CELL[1] + BOX[1] + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="system-ui, sans-serif" text-anchor="middle">',
        f"<title>{html.escape('Steps of a run: ' + ', '.join(BOXES))}</title>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="4" markerHeight="4" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{ARROW}"/></marker>',
        *(_arrow(BOXES[start], BOXES[end]) for start, end in arrows()),
        *(_box(name, box) for name, box in BOXES.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _corner(box: Box) -> tuple[float, float]:
    return MARGIN + box.col * CELL[0], MARGIN + box.row * CELL[1]


def _arrow(start: Box, end: Box) -> str:
    """From the middle of one side to the middle of another: straight, or bent once half-way."""
    (x0, y0), (x1, y1) = _corner(start), _corner(end)
    y0, y1 = y0 + BOX[1] / 2, y1 + BOX[1] / 2
    x0, x1 = x0 + BOX[0], x1 - 1
    middle = x1 - (CELL[0] - BOX[0]) / 2
    bend = "" if y0 == y1 else f"H{middle:g}V{y1:g}"
    path = f"M{x0:g} {y0:g}{bend}H{x1:g}"
    return (
        f'<path d="{path}" fill="none" stroke="{ARROW}" stroke-width="2" marker-end="url(#head)"/>'
    )


def _box(name: str, box: Box) -> str:
    (x, y), kind = _corner(box), box.kind
    middle = x + BOX[0] / 2
    line = lambda dy, size, weight, text: (
        f'<text x="{middle:g}" y="{y + dy:g}" font-size="{size}" font-weight="{weight}" '
        f'fill="{kind.text}">{html.escape(text)}</text>'
    )
    return "\n".join(
        (
            f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="7" '
            f'fill="{kind.fill}" stroke="{kind.edge}" stroke-width="1.5"/>',
            line(22, 14, 600, name),
            line(39, 11, 400, box.about[0]),
            line(53, 11, 400, box.about[1]),
        )
    )


if __name__ == "__main__":
    atomic.write_text(PATH, drawing())
