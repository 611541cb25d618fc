"""Two images in one linked deep-zoom view, with the map of similarity and lines over both.

Without scripts, or without the viewer's file, the plain images are shown.
"""

import dataclasses
import html
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import pixel_units
from ssldiff_jax.formats import atomic
from ssldiff_jax.report import charts, pictures, seams, units
from ssldiff_jax.slides import pyramid

_VENDOR = pathlib.Path(__file__).parent / "vendor"
# Part of the package, so that a report opens as a file, without a network.
_SCRIPT = "openseadragon.min.js"
_OWN = ("scale.js", "viewer.js", "page.js")
_FILES = (_SCRIPT, "openseadragon.LICENSE.txt")
_VECTOR_CELLS = 4096  # a map of more cells is shown as an image


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the top left corner of an image lies in its slide, in pixels of the image's scale, and
    how many pixels of the slide at full resolution one of them is."""

    top: int
    left: int
    native_px: float


@dataclasses.dataclass(frozen=True)
class Region:
    """A reference and the image generated from its embeddings.

    Attributes:
        cell_px: side of a cell.
        similarity: cosine of every cell (rows, cols), or None.
        encoder_name: whose embeddings they are, the encoder's or the judge's.
        windows: borders of the sampler's windows, or None.
        mpp: µm per pixel, or None: no scale bar then.
        origin: its place in a slide, or None.
    """

    title: str
    reference: pictures.Picture
    synthetic: pictures.Picture
    cell_px: int
    similarity: np.ndarray | None
    encoder_name: str = "encoder"
    windows: seams.Lines | None = None
    mpp: float | None = None
    origin: Origin | None = None

    @property
    def lattice(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.reference.height // self.cell_px, self.reference.width // self.cell_px


def scripts(folder: pathlib.Path) -> str:
    """Copy the viewer and its licence into `folder`; the element that loads it."""
    for name in _FILES:
        text = (_VENDOR / name).read_text("utf-8")
        atomic.write_text(folder / name, text)
    return f'<script src="{_SCRIPT}"></script>'


def own_scripts() -> str:
    """The scripts of the page itself, to be written into it."""
    folder = pathlib.Path(__file__).parent
    return "\n".join((folder / name).read_text("utf-8") for name in _OWN)


def comparisons(regions: Sequence[Region], folder: pathlib.Path) -> str:
    """All pairs; the maps share one range of colours and are written into `folder` as images."""
    maps = [r.similarity for r in regions if r.similarity is not None]
    # One range for all regions: a colour means the same in each.
    low = min((float(m.min()) for m in maps), default=0.0)
    high = max((float(m.max()) for m in maps), default=1.0)
    hint = (
        '<p class="hint scripted">Both images show the same place. Drag to move; zoom with '
        "<kbd>Ctrl</kbd> and the wheel, or with two fingers; double click for the whole image. "
        "With the keyboard, once the viewer has the focus: arrows, <kbd>+</kbd> <kbd>−</kbd> "
        "<kbd>0</kbd>, and <kbd>m</kbd> similarity map, <kbd>l</kbd> cells, <kbd>w</kbd> windows, "
        "<kbd>s</kbd> swipe, <kbd>f</kbd> full screen. Below the buttons stand the coordinates "
        "under the pointer, or of the centre.</p>"
    )
    return hint + "".join(_region(i, r, (low, high), folder) for i, r in enumerate(regions))


def inline_json(value: Any) -> str:
    """JSON that is safe in an attribute and in a script, whatever strings it holds."""
    # JSON has no NaN: one would keep the page's script from being read.
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    # The last two end a line in JavaScript, and in JSON do not.
    for character in "<>&'\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _region(i: int, r: Region, colours: tuple[float, float], folder: pathlib.Path) -> str:
    rows, cols = r.lattice
    view: dict[str, Any] = {
        "sources": [r.reference.source, r.synthetic.source],
        "cell": r.cell_px,
        "rows": rows,
        "cols": cols,
    }
    if r.similarity is not None:
        # As many digits as are shown.
        view["similarity"] = np.round(r.similarity, 3).tolist()
        view["map"] = _write_map(folder / f"similarity_{i}.png", r.similarity, colours)
    if r.windows:
        view["windows"] = {"rows": r.windows.rows, "cols": r.windows.cols}
    if r.mpp:
        view |= {"mpp": r.mpp, "scene": pixel_units.is_scene(r.mpp)}
    if r.origin:
        view["origin"] = dataclasses.asdict(r.origin)
    label = f"Real and generated image of region {i + 1}, linked; arrow keys move, plus and minus "
    return (
        f'<section class="region"><h3>{html.escape(r.title)}</h3>'
        f'<div class="viewer" tabindex="0" role="group" aria-label="{label}zoom" '
        f"data-view='{inline_json(view)}'>{_tools(r)}"
        f'<div class="panes">{_pane(r.reference, "Real, held out of training", "reference", r.mpp)}'
        f"{_pane(r.synthetic, 'Generated', 'synthetic', r.mpp)}</div>"
        f"{_similarity(r, colours, view.get('map'))}</div></section>"
    )


def _write_map(path: pathlib.Path, values: np.ndarray, colours: tuple[float, float]) -> str:
    """One pixel a cell; the file's name."""
    low, high = colours
    # Maps that are of one value alone.
    span = high - low or 1.0
    pixels = [[charts.colour((float(v) - low) / span) for v in row] for row in values]
    pyramid.write_png(path, np.array(pixels, np.uint8))
    return path.name


def _tools(r: Region) -> str:
    buttons = [
        _button("in", "+", "Zoom in (+)"),
        _button("out", "−", "Zoom out (−)"),
        _button("reset", "Whole image", "Show the whole image (0)"),
        _button("swipe", "Swipe", "Lay one image over the other (s)", pressed=False),
        _button("cells", "Cells", "Borders of cells (l)", pressed=False),
    ]
    if r.windows:
        title = f"{r.windows.title} (w)"
        buttons.append(_button("windows", "Windows", title, pressed=False))
    if r.similarity is not None:
        title = "Embedding similarity of every cell as colours (m)"
        buttons.append(_button("map", "Similarity map", title, pressed=False))
    buttons.append(_button("full", "Full screen", "Full screen (f)", pressed=False))
    split = (
        '<input type="range" min="0" max="100" value="50" '
        'aria-label="position of the border between both images">'
    )
    return f'<div class="tools scripted">{"".join(buttons)}{split}<output></output></div>'


def _button(name: str, text: str, title: str, *, pressed: bool | None = None) -> str:
    state = "" if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    label = html.escape(title)
    return (
        f'<button type="button" data-do="{name}" title="{label}" aria-label="{label}"{state}>'
        f"{text}</button>"
    )


def _pane(picture: pictures.Picture, caption: str, kind: str, mpp: float | None) -> str:
    ratio = f"{picture.width} / {picture.height}"
    size = units.size(picture.height, picture.width, mpp)
    bar = '<div class="scale scripted" hidden><i></i><span></span></div>' if mpp else ""
    return (
        f'<figure class="pane {kind}"><figcaption>{caption} <small>{size}</small></figcaption>'
        f'<div class="port" style="aspect-ratio:{ratio}">{picture.img(f"{caption}, {size}")}'
        f'<div class="stage"></div><canvas class="over" aria-hidden="true"></canvas>{bar}</div>'
        "</figure>"
    )


def _similarity(r: Region, colours: tuple[float, float], image: str | None) -> str:
    values = r.similarity
    if values is None:
        return ""
    low, high = colours
    worst = np.unravel_index(np.argmin(values), values.shape)
    shown = charts.heat_map(values, low, high)
    # Some elements a cell: a browser would lay them out for seconds.
    if values.size > _VECTOR_CELLS:
        shown = f'<img class="heat" src="{image}" alt="embedding similarity of every cell">'
    number = charts.number
    return (
        f'<div class="map"><div>{shown}</div><div><h4>Embedding similarity per cell</h4>'
        "<p>Cosine between the embedding of the real cell and that of the generated cell at the "
        f"same place, by the {r.encoder_name}. 1 is ideal. "
        "Point at a cell to mark it in both images.</p>"
        f'<div class="legend" style="background:{charts.gradient()}"></div>'
        f'<p class="ends"><span>{number(low)}</span><span>{number(high)}</span></p>'
        f"<dl><dt>mean</dt><dd>{number(values.mean())}</dd><dt>median</dt>"
        f"<dd>{number(float(np.median(values)))}</dd><dt>lowest</dt><dd>{number(values.min())} "
        f"<small>row {worst[0] + 1}, column {worst[1] + 1}</small></dd></dl></div></div>"
    )
