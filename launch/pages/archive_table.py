"""What the tool `bench` measured of archives, and what that means for many slides, as Markdown."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import goals

_SIZES = {"1 000 slides (10 M patches)": 10e6, "30 000 slides (300 M patches)": 300e6}
_TILING = goals.Goal(low=150)  # patches a second and core


def collect(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The rows of `bench/results.json` on archives, by name; None where it has none."""
    folder = workdir / "bench"
    if not (folder / "done.json").exists():
        return None
    rows = atomic.read_json(folder / "results.json")
    measured = {r["name"].partition("/")[2]: r for r in rows if r["name"].startswith("archive/")}
    done = atomic.read_json(folder / "done.json")
    run = {"date": done["finished"][:10], "jax": done["versions"]["jax"]}
    return {"rows": measured, **run} if measured else None


def markdown(collected: Mapping[str, Any]) -> str:
    """A table of what is measured; core hours and bytes of many slides beside it."""
    at = {name: row["value"] for name, row in collected["rows"].items()}
    tiled, hashed, decoded = (at[f"{what}_per_core"] for what in ("tiled", "hashed", "decoded"))
    missed = "" if _TILING.is_met([tiled]) else goals.MISSED
    rows = {
        "tiling, from tissue to shards": (
            f"{missed}{tiled:.0f} patches/s a core (goal {_TILING})", *_hours(1 / tiled)),
        "size": (f"{at['bytes'] / 1e3:.1f} kB a patch",
                 *(f"{_digits(at['bytes'] * n / 1e12)} TB" for n in _SIZES.values())),
        "verify: hashing / decoding": (
            f"{_digits(hashed)} / {_digits(decoded)} patches/s a core",
            *_hours(1 / hashed + 1 / decoded)),
        "reading stored records at random": (f"{_digits(at['read_at_random'])} a second", "", ""),
        "memory of tiling, beside the program": (
            f"{at['tiling_memory']:.0f} MiB a process", "", ""),
    }  # fmt: skip
    hardware = next(iter(collected["rows"].values()))["hardware"]
    lines = [f"| | measured | {' | '.join(_SIZES)} |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    table = "\n".join(lines)
    return f"{hardware}; {collected['date']}, jax {collected['jax']}.\n\n{table}\n"


def _hours(seconds: float) -> list[str]:
    """Core hours of many patches that take so many seconds each."""
    return [f"{_digits(count * seconds / 3600)} core hours" for count in _SIZES.values()]


def _digits(value: float) -> str:
    """Two significant digits, thousands apart."""
    value = float(f"{value:.2g}")
    return f"{value:,.0f}".replace(",", " ") if value >= 10 else f"{value:g}"
