"""Results of the tool `study` as Markdown: the simplest classifier, and every significant gain."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures

_MIXTURES = {"real": "real", "synthetic": "synthetic", "real + synthetic": "both"}
_BOTH = "real + synthetic"


def collect(workdir: pathlib.Path, labels: str) -> dict[str, Any] | None:
    """AUC of every classifier and part of `study/results.json`, and its gains; None where there is
    no study of patches with these `labels`."""
    folder = workdir / "study"
    if not (folder / "done.json").exists():
        return None
    settings = atomic.read_json(folder / "stage.json")["config"]["study"]["patches"]
    if settings["labels"] != labels:
        return None
    results, done = (atomic.read_json(folder / name) for name in ("results.json", "done.json"))
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in results["rows"]:
        key = row["task"], row["model"], row["fraction"]
        line = rows.setdefault(key, dict(zip(("task", "model", "fraction"), key, strict=True)))
        line[_MIXTURES[row["mixture"]]] = row["auc"]["mean"]
        line["examples"] = max(row["real"], line.get("examples", 0))
        if row["mixture"] == _BOTH:
            line["gain"] = row["gain"]["auc"]
    return {
        "rows": list(rows.values()),
        "class_agreement": {
            name: task["class_agreement"] for name, task in results["tasks"].items()
        },
        "seeds": results["rows"][0]["seeds"],
        "date": done["finished"][:10],
        "jax": done["versions"]["jax"],
        "machine": atomic.read_json(workdir / "environment.json")["machine"],
    }


def markdown(collected: Mapping[str, Any]) -> str:
    """The first classifier of every task at every part of the real data, and every row whose gain
    is clear of zero, in bold; and how many rows there are."""
    first: dict[str, str] = {}
    for row in collected["rows"]:
        first.setdefault(row["task"], row["model"])
    shown = [r for r in collected["rows"] if r["model"] == first[r["task"]] or _is_clear(r)]
    lines = ["| | classifier | real examples | real | synthetic | both | gain of both |"]
    lines += ["|---|---|---|---|---|---|---|", *(_line(row) for row in shown)]
    up, down = (
        sum(_is_clear(r) and (r["gain"]["mean"] > 0) == is_up for r in collected["rows"])
        for is_up in (True, False)
    )
    machine, count = collected["machine"], len(collected["rows"])
    run = f"{collected['date']}, jax {collected['jax']}"
    kept = [f"{value:.2f}" for value in collected["class_agreement"].values() if value is not None]
    agreement = f" Class agreement of generated patches: {kept[0]}." if kept else ""
    return (
        f"{machine['cores']} cores of {machine['processor']}; {run}; "
        f"{collected['seeds']} seeds.\nOf {count} gains the interval lies above zero in {up} and "
        f"below it in {down}; by chance {0.025 * count:.1f} of each are expected.{agreement}\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _is_clear(row: Mapping[str, Any]) -> bool:
    return row["gain"]["low"] > 0 or row["gain"]["high"] < 0


def _line(row: Mapping[str, Any]) -> str:
    number = figures.number
    mean, low, high = (number(row["gain"][key], ".3f") for key in ("mean", "low", "high"))
    gain = f"**{mean}**" if _is_clear(row) else mean
    auc = " | ".join(number(row[name], ".3f") for name in _MIXTURES.values())
    return (
        f"| {row['task']} | {row['model']} | {row['examples']} | {auc} | {gain} ({low} … {high}) |"
    )
