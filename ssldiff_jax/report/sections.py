"""Tables of time, of encoders and of config keys; what comes from a config or a machine is
escaped."""

import html
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.report import charts, tables

number = charts.number


def stage_table(stages: Mapping[str, Mapping[str, float]], elapsed: Mapping[str, float]) -> str:
    """Seconds, share of their sum and peak memory of every stage, and what passed in all: less
    than the sum where stages ran at the same time."""
    total = sum(s["seconds"] for s in stages.values())
    rows = []
    for name, cost in stages.items():
        share = cost["seconds"] / total if total else 0.0
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{duration(cost["seconds"])}</td>'
            f'<td class="share"><i style="width:{100 * share:.1f}%"></i></td>'
            f"<td>{100 * share:.0f} %</td><td>{cost['peak_rss_mb']:,.0f}</td></tr>"
        )
    table = (
        '<table class="stages"><thead><tr><th scope="col">stage</th><th scope="col">time</th>'
        '<td></td><th scope="col">share of the time</th><th scope="col">peak memory, MiB</th></tr>'
        f'</thead><tbody>{"".join(rows)}</tbody><tfoot><tr><th scope="row">all stages</th>'
        f"<td>{duration(elapsed['seconds'])}</td><td></td><td></td>"
        f"<td>{elapsed['peak_rss_mb']:,.0f}</td></tr></tfoot></table>"
    )
    return tables.scrollable("time and memory of stages", table)


def duration(seconds: float) -> str:
    """Seconds below two minutes; tenths of minutes, hours and minutes, or days and hours, above."""
    if seconds < 120:
        return f"{number(seconds)} s"
    # Rounded before it is split, so that no hour has 60 minutes.
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{seconds / 60:.1f} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def encoder_table(encoders: Mapping[str, Mapping[str, Any]]) -> str:
    """Retrieval of moved and of changed patches, and effective rank; one column an encoder."""
    shifts = sorted({int(s) for e in encoders.values() for s in e["retrieval_top1"]})
    rows: list[tuple[str, Any]] = [
        (
            f"retrieval of patches moved by {s} px",
            # `s` is bound now: by the time of the call the loop is at its last.
            lambda e, s=s: number(e["retrieval_top1"].get(str(s))),
        )
        for s in shifts
    ]
    rows.append(
        ("retrieval of enlarged, recoloured patches", lambda e: number(e["retrieval_of_views"]))
    )
    rows += [
        ("effective rank", _rank),
        ("digest of the weights", lambda e: html.escape(str(e["hash"]))),
    ]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in encoders)
    body = "".join(
        f'<tr><th scope="row">{label}</th>'
        f"{''.join(f'<td>{get(e)}</td>' for e in encoders.values())}</tr>"
        for label, get in rows
    )
    return tables.scrollable(
        "encoders",
        f'<table class="plain"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
    )


def _rank(encoder: Mapping[str, Any]) -> str:
    """Beside that of white noise, where it was measured."""
    said, noise = f"of {encoder['dim']}", encoder["effective_rank_of_noise"]
    if noise is not None:
        said += f"; white noise, {encoder['num_ranked']:,} vectors: {number(noise)}"
    return f"{number(encoder['effective_rank'])} <small>{said}</small>"


def key_values(values: Mapping[str, Any]) -> str:
    """A nested tree as dotted keys with their values."""
    return "".join(
        f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(_plain(value))}</dd></div>"
        for key, value in sorted(schema.flatten(values).items())
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
