"""Fragments of the page. Whatever comes from a config, a file name or a machine is escaped."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.evaluation.report import charts

number = charts.number


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG beside the page, and its size in pixels."""

    name: str
    height: int
    width: int

    def img(self, alt: str) -> str:
        """The element; `alt` is escaped here."""
        return (
            f'<img src="{self.name}" width="{self.width}" height="{self.height}" '
            f'alt="{html.escape(alt)}" draggable="false">'
        )


@dataclasses.dataclass(frozen=True)
class Region:
    """A reference and the synthetic image drawn from its embeddings.

    Attributes:
        cell_px: side of a cell.
        similarity: cosine of every cell (rows, cols), or None.
        eye: whose embeddings they are, the encoder's or the judge's.
    """

    title: str
    reference: Picture
    synthetic: Picture
    cell_px: int
    similarity: np.ndarray | None
    eye: str = "encoder"

    @property
    def lattice(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.reference.height // self.cell_px, self.reference.width // self.cell_px


def key_figures(m: Mapping[str, Any], cells_per_region: int) -> str:
    """One card a figure: its value by the encoder and by the judge, and what to hold it against."""
    eyes = [("encoder", m), ("judge", m["judge"])]
    eyes = [(who, found) for who, found in eyes if found and found["embedding_similarity"]]
    both = lambda get: tuple((who, get(found)) for who, found in eyes)
    versus = lambda get: " · ".join(number(v) for _, v in both(get))
    floor = f"real against real {versus(lambda r: r['fd_floor'])}; 0 is ideal"
    cards = [
        ("Embedding similarity", both(lambda r: r["embedding_similarity"]["mean"]),
         f"unrelated cells {versus(lambda r: r['embedding_similarity']['shuffled'])}; 1 is ideal"),
        ("Cell retrieval, top 1", both(lambda r: r["cell_retrieval_top1"]),
         f"chance {number(1 / cells_per_region)}; 1 is ideal; {eyes[0][1]['num_cells']:,} cells"),
        ("Fréchet distance, cells alone", both(lambda r: r["patch_fd"]), floor),
        ("Reconstruction", [("dB PSNR", m["reconstruction_psnr"]),
                            ("SSIM", m["reconstruction_ssim"])],
         "what the autoencoder alone can give; SSIM 1 is ideal"),
    ]  # fmt: skip
    if m["large_image"]:
        cards.insert(2, ("Fréchet distance, large image", both(lambda r: r["crop_fd"]), floor))
        cards += _large_figures(m)
    return "".join(_card(*card) for card in cards)


def _large_figures(m: Mapping[str, Any]) -> list[tuple]:
    """Cards that only a large image has."""
    layout, image = m["layout_correlation"], m["large_image"]
    later = "".join(f"; the next {number(i['seconds'])} s" for i in m["large_images"][1:2])
    return [
        ("Layout correlation", [("", layout["identity"])],
         f"transposed {number(layout.get('transposed'))}; chance 0, ideal 1"),
        ("Seam energy", [("", m["seam_energy"])],
         f"real regions {number(m['seam_energy_real'])}; 1 is seamless"),
        ("Time of a large image", [("s", image["seconds"])],
         f"{image['height']:,} × {image['width']:,} px; denoiser calls "
         f"{image['unet_forwards']:,}, decoder calls {image['decoder_calls']:,}{later}"),
    ]  # fmt: skip


def _card(name: str, values: Sequence[tuple[str, float]], note: str) -> str:
    shown = "".join(
        f'<span class="value"><b>{number(value)}</b> <small>{who}</small></span>'
        for who, value in values
    )
    return f'<div class="card"><h3>{name}</h3><p>{shown}</p><p class="note">{note}</p></div>'


_TOOLS = (
    '<button data-do="in" title="zoom in (+)">+</button>'
    '<button data-do="out" title="zoom out (−)">−</button>'
    '<button data-do="reset" title="whole image (double click)">Reset</button>'
    '<button data-do="lattice" aria-pressed="false" title="cell borders (l)">Lattice</button>'
    '<button data-do="swipe" aria-pressed="false" title="one over the other (s)">Swipe</button>'
)


def region(r: Region, colours: tuple[float, float]) -> str:
    """The two linked viewers, and the map of similarity on the shared colour range."""
    rows, cols = r.lattice
    tint = ""
    if r.similarity is not None:
        tint = '<button data-do="tint" aria-pressed="false" title="colours of the map over '
        tint += 'both images (m)">Map</button>'
    return (
        f'<section class="region"><h3>{html.escape(r.title)}</h3>'
        f'<div class="viewer" tabindex="0" data-rows="{rows}" data-cols="{cols}">'
        f'<div class="tools">{_TOOLS}{tint}<output></output></div>'
        f'<div class="panes">{_pane(r, r.reference, "Real, never trained on", "reference")}'
        f"{_pane(r, r.synthetic, 'Synthetic', 'synthetic')}</div>"
        f"{_similarity(r, colours)}</div></section>"
    )


def _pane(r: Region, picture: Picture, caption: str, kind: str) -> str:
    rows, cols = r.lattice
    lines = "".join(f"M{i},0V{rows}" for i in range(1, cols))
    lines += "".join(f"M0,{i}H{cols}" for i in range(1, rows))
    ratio = f"{picture.width} / {picture.height}"
    return (
        f'<figure class="pane {kind}"><figcaption>{caption}</figcaption>'
        f'<div class="port" style="aspect-ratio:{ratio}"><div class="world">{picture.img(caption)}'
        f'<svg class="over" viewBox="0 0 {cols} {rows}" preserveAspectRatio="none">'
        f'<path class="lattice dark" d="{lines}"/><path class="lattice" d="{lines}"/>'
        '<rect class="mark" width="1" height="1"/></svg></div></div></figure>'
    )


def _similarity(r: Region, colours: tuple[float, float]) -> str:
    values = r.similarity
    if values is None:
        return ""
    low, high = colours
    worst = np.unravel_index(np.argmin(values), values.shape)
    return (
        f'<div class="map"><div>{charts.heat_map(values, low, high)}</div><div><h4>Does each cell '
        "say what it was asked to say?</h4><p>Cosine between the embeddings of the real cell and "
        f"of what was drawn, by the {r.eye}. Point at a cell to find it in both "
        f'images.</p><div class="legend" style="background:{charts.gradient()}"></div>'
        f'<p class="ends"><span>{number(low)}</span><span>{number(high)}</span></p>'
        f"<dl><dt>mean</dt><dd>{number(values.mean())}</dd><dt>median</dt>"
        f"<dd>{number(float(np.median(values)))}</dd><dt>lowest</dt><dd>{number(values.min())} "
        f"<small>row {worst[0] + 1}, column {worst[1] + 1}</small></dd></dl></div></div>"
    )


def stage_table(stages: Mapping[str, Mapping[str, float]]) -> str:
    """Seconds, share of the total and peak memory of every stage."""
    total = sum(s["seconds"] for s in stages.values())
    rows = []
    for name, cost in stages.items():
        share = cost["seconds"] / total if total else 0.0
        rows.append(
            f"<tr><th>{html.escape(name)}</th><td>{duration(cost['seconds'])}</td>"
            f'<td class="share"><i style="width:{100 * share:.1f}%"></i></td>'
            f"<td>{100 * share:.0f} %</td><td>{cost['peak_rss_mb']:,.0f}</td></tr>"
        )
    peak = max((s["peak_rss_mb"] for s in stages.values()), default=0)
    return (
        '<table class="stages"><thead><tr><th>stage</th><td>time</td><td></td><td>share</td>'
        f"<td>peak MB</td></tr></thead><tbody>{''.join(rows)}</tbody><tfoot><tr><th>total</th>"
        f"<td>{duration(total)}</td><td></td><td></td><td>{peak:,.0f}</td></tr></tfoot></table>"
    )


def duration(seconds: float) -> str:
    """Seconds below two minutes; minutes, or hours and minutes, above."""
    if seconds < 120:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 120 else f"{minutes} min"


def encoder_table(encoders: Mapping[str, Mapping[str, Any]]) -> str:
    """Retrieval at shifts and effective rank, one column an encoder."""
    shifts = sorted({int(s) for e in encoders.values() for s in e["retrieval_top1"]})
    rows: list[tuple[str, Any]] = [
        (f"retrieval, {s} px away", lambda e, s=s: number(e["retrieval_top1"].get(str(s))))
        for s in shifts
    ]
    rank = lambda e: f"{number(e['effective_rank'])} <small>of {e['dim']}</small>"
    rows += [("effective rank", rank), ("weights", lambda e: html.escape(str(e["hash"])))]
    head = "".join(f"<td>{html.escape(name)}</td>" for name in encoders)
    body = "".join(
        f"<tr><th>{label}</th>{''.join(f'<td>{get(e)}</td>' for e in encoders.values())}</tr>"
        for label, get in rows
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def key_values(values: Mapping[str, Any]) -> str:
    """A nested tree as dotted keys with their values."""
    return "".join(
        f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(_plain(value))}</dd></div>"
        for key, value in sorted(config_lib.flatten(values).items())
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
