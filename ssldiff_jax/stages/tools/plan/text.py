"""A plan as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import durations

_HEAD = ("step", "counts", "disk GB", "host GB", "device GB", "TFLOP", "h", "time by")
_ESTIMATE = "~"
_LEAST = 0.001


def of(results: Mapping[str, Any]) -> str:
    """Results of the tool as lines: a row for each step, then where its figures come from."""
    sources: dict[str, int] = {}
    table = [_HEAD, *(_row(line, sources) for line in results["stages"])]
    table.append(_last(results["total"]))
    return "\n".join([*_title(results), "", *_aligned(table), "", *_notes(results, sources)])


def _title(results: Mapping[str, Any]) -> list[str]:
    devices, slides = results["devices"], results["slides"]
    there = "" if devices["are_here"] else " (not here)"
    lines = [f"for {devices['count']} × {devices['kind']}, {devices['memory'] / 1e9:.0f} GB{there}"]
    if "unknown" in slides:
        return [*lines, f"slides cannot be counted: {slides['unknown']}"]
    return [*lines, f"{slides['looked_at']:,} of {slides['named']:,} slides or patches looked at"]


def _row(line: Mapping[str, Any], sources: dict[str, int]) -> tuple[str, ...]:
    if line["state"] == "done":
        taken = f"{line['seconds_taken'] / 3600:.2g}"
        return (line["stage"], "done", "", "", "", "", taken, "taken")
    if "unknown" in line:
        return (line["stage"], f"unknown: {line['unknown']}"[:70], "?", "?", "?", "?", "?", "")
    if not line["counts"]:
        return (line["stage"], "nothing to do", "", "", "", "", "", "")
    marks = [str(sources.setdefault(source, len(sources) + 1)) for source in line["rate"]]
    counts = ", ".join(f"{name} {_number(n)}" for name, n in line["counts"].items() if n["value"])
    return (
        line["stage"],
        counts,
        _sum(line["writes"], 1e9),
        _sum(line["host"], 1e9),
        _sum(line["device"], 1e9),
        _scaled(line["flops"], 1e12),
        _scaled(line["seconds"], 3600),
        f"[{','.join(marks)}]",
    )


def _last(total: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (
        _scaled(total["writes"], 1e9), "", "", _scaled(total["flops"], 1e12),
        _scaled(total["seconds"], 3600),
    )  # fmt: skip
    return ("all", f"about {durations.clock(total['seconds']['value'] or 0)} of work", *numbers, "")


def _number(number: Mapping[str, Any]) -> str:
    sign = "" if number["basis"] == "exact" else _ESTIMATE
    return "?" if number["value"] is None else f"{sign}{round(number['value']):,}"


def _scaled(number: Mapping[str, Any], unit: float) -> str:
    if number["value"] is None:
        return "?"
    if not number["value"]:
        return "–"
    sign = "" if number["basis"] == "exact" else _ESTIMATE
    value = number["value"] / unit
    if value < _LEAST:
        return f"<{_LEAST:g}"
    return f"{sign}{value:,.0f}" if value >= 100 else f"{sign}{value:.2g}"


def _sum(numbers: Mapping[str, Mapping[str, Any]], unit: float) -> str:
    known = [n for n in numbers.values() if n["value"]]
    if not known:
        return "–"
    exact = all(n["basis"] == "exact" for n in known)
    value = sum(n["value"] for n in known)
    return _scaled({"value": value, "basis": "exact" if exact else "estimate"}, unit)


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    """Numbers to the right; counts, which are long, as they come below each other."""
    wide = [max(len(row[i]) for row in table) for i in range(len(_HEAD))]
    wide[1] = min(wide[1], 72)
    lines = []
    for row in table:
        first, *more = _broken(row[1], wide[1])
        numbers = (text.rjust(width) for text, width in zip(row[2:], wide[2:], strict=True))
        lines.append("  ".join([row[0].ljust(wide[0]), first.ljust(wide[1]), *numbers]).rstrip())
        lines += [f"{'':{wide[0]}}  {text}" for text in more]
    return lines


def _broken(text: str, width: int) -> list[str]:
    """Lines of whole counts."""
    lines = [""]
    for part in text.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def _notes(results: Mapping[str, Any], sources: Mapping[str, int]) -> list[str]:
    return [
        f"{_ESTIMATE} is an estimate: results.json says from what, and between which bounds; "
        "numbers without it are exact",
        *(f"[{number}] {source}" for source, number in sources.items()),
        *(f"cannot be used: {name}: {why}" for name, why in _unusable(results)),
        *(f"warning: {line}" for line in results["warnings"]),
        *(f"refused: {line}" for line in results.get("refusals", ())),
    ]


_SHOWN = 5


def _unusable(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(results["slides"].get("reasons", {}).items())[:_SHOWN]
