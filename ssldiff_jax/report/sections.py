"""Fragments of the page. Whatever comes from a config, a file name or a machine is escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.report import charts

number = charts.number


def key_figures(m: Mapping[str, Any], cells_per_region: int) -> str:
    """One card a figure: its value by the encoder and by the judge, and what to hold it against."""
    eyes = [("encoder", m), ("judge", m["judge"])]
    eyes = [(who, found) for who, found in eyes if found and found["embedding_similarity"]]
    both = lambda get: tuple((who, get(found)) for who, found in eyes)
    versus = lambda get: " · ".join(number(v) for _, v in both(get))
    floor = f"real against real {versus(lambda r: r['fd_floor_uncorrected'])}; 0 is ideal"
    cards = [
        ("Embedding similarity", both(lambda r: r["embedding_similarity"]["mean"]),
         f"unrelated cells {versus(lambda r: r['embedding_similarity']['shuffled'])}; 1 is ideal"),
        ("Cell retrieval, top 1", both(lambda r: r["cell_retrieval_top1"]),
         f"chance {number(1 / cells_per_region)}; 1 is ideal; {eyes[0][1]['num_cells']:,} cells"),
        ("Fréchet distance, cells alone, uncorrected",
         both(lambda r: r["patch_fd_uncorrected"]), floor),
        ("Reconstruction", [("dB PSNR", m["reconstruction_psnr"]),
                            ("SSIM", m["reconstruction_ssim"])],
         "what the autoencoder alone can give; SSIM 1 is ideal"),
    ]  # fmt: skip
    if m["rings"]:
        border = m["rings"]["border"]
        cards.append((
            "Border of patches drawn alone", [("grey levels", border["generated"]["value"])],
            f"{_spread(border)}; the outermost pixels over those next to them; 0 is ideal",
        ))  # fmt: skip
    if m["large_image"]:
        cards.insert(
            2,
            (
                "Fréchet distance, large image, uncorrected",
                both(lambda r: r["crop_fd_uncorrected"]),
                floor,
            ),
        )
        cards += _large_figures(m)
    return "".join(_card(*card) for card in cards)


def _large_figures(m: Mapping[str, Any]) -> list[tuple]:
    """Cards that only a large image has."""
    layout, image = m["layout_correlation"], m["large_image"]
    none = "" if layout["identity"] is not None else "; none of cells of one colour"
    later = "".join(f"; the next {number(i['seconds'])} s" for i in m["large_images"][1:2])
    return [
        ("Layout correlation", [("", layout["identity"])],
         f"transposed {number(layout.get('transposed'))}; chance 0, ideal 1{none}"),
        *_seams(m["seams"] or {}),
        ("Time of a large image", [("s", image["seconds"])],
         f"{image['height']:,} × {image['width']:,} px; denoiser calls "
         f"{image['unet_forwards']:,}, decoder calls {image['decoder_calls']:,}{later}"),
    ]  # fmt: skip


_RULERS = {
    "last_step": ("Steps across window lines", "the last solver step’s windows; 1 is seamless"),
    "worst_phase": ("Steps at the worst phase", "of all phases; real ones are above 1 too"),
    "cell_lines": ("Steps across borders of cells", "1 is seamless"),
}


def _seams(found: Mapping[str, Any]) -> list[tuple]:
    """A card for each ruler of seams."""
    told = [(*_RULERS[name], found[name]) for name in _RULERS if name in found]
    return [
        (title, [("", both["generated"]["value"])], f"{_spread(both)}; {note}")
        for title, note, both in told
        if both["generated"] and both["real"]
    ]


def _spread(both: Mapping[str, Any]) -> str:
    """Standard error and count of a mean, and real images' own."""
    drawn, real = both["generated"], both["real"]
    errors = [f" ± {number(x['error'])}" if x["error"] is not None else "" for x in (drawn, real)]
    return (
        f"{errors[0]} (n = {drawn['count']}); real ones {number(real['value'])}{errors[1]}".strip()
    )


def _card(name: str, values: Sequence[tuple[str, float | None]], note: str) -> str:
    shown = " ".join(
        f'<span class="value"><b>{number(value)}</b> <small>{who}</small></span>'
        for who, value in values
    )
    return f'<div class="card"><h3>{name}</h3><p>{shown}</p><p class="note">{note}</p></div>'


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
        f"<td>peak MiB</td></tr></thead><tbody>{''.join(rows)}</tbody><tfoot><tr><th>total</th>"
        f"<td>{duration(total)}</td><td></td><td></td><td>{peak:,.0f}</td></tr></tfoot></table>"
    )


def duration(seconds: float) -> str:
    """Seconds below two minutes; tenths of minutes, hours and minutes, or days and hours, above."""
    if seconds < 120:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{seconds / 60:.1f} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def encoder_table(encoders: Mapping[str, Mapping[str, Any]]) -> str:
    """Retrieval at shifts and by a view, and effective rank; one column an encoder."""
    shifts = sorted({int(s) for e in encoders.values() for s in e["retrieval_top1"]})
    rows: list[tuple[str, Any]] = [
        (f"retrieval, {s} px away", lambda e, s=s: number(e["retrieval_top1"].get(str(s))))
        for s in shifts
    ]
    rows.append(("retrieval by a view", lambda e: number(e["retrieval_of_views"])))
    rows += [("effective rank", _rank), ("weights", lambda e: html.escape(str(e["hash"])))]
    head = "".join(f"<td>{html.escape(name)}</td>" for name in encoders)
    body = "".join(
        f"<tr><th>{label}</th>{''.join(f'<td>{get(e)}</td>' for e in encoders.values())}</tr>"
        for label, get in rows
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="encoders">'
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _rank(encoder: Mapping[str, Any]) -> str:
    """Beside that of white noise, where it was measured."""
    said, noise = f"of {encoder['dim']}", encoder["effective_rank_of_noise"]
    if noise is not None:
        said += f"; {encoder['num_ranked']:,} vectors of white noise have {number(noise)}"
    return f"{number(encoder['effective_rank'])} <small>{said}</small>"


def key_values(values: Mapping[str, Any]) -> str:
    """A nested tree as dotted keys with their values."""
    return "".join(
        f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(_plain(value))}</dd></div>"
        for key, value in sorted(schema.flatten(values).items())
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
