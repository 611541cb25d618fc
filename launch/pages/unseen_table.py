"""Figures of a model on held-out data of its training set and on another data set, as Markdown."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures

_METRICS = {
    "Fréchet": ("frechet", ".2f"),
    "KID": ("kid", ".3f"),
    "precision": ("precision_recall.precision", ".2f"),
    "recall": ("precision_recall.recall", ".2f"),
}
"""Of single patches, by the judge."""


def collect(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Figures of a run with the models of another and of that other; None without `models`."""
    path = workdir / "evaluate" / "results.json"
    if not path.exists():
        return None
    models = atomic.read_json(workdir / "config.json").get("models")
    if not models:
        return None
    environment = atomic.read_json(workdir / "environment.json")
    own = pathlib.Path(models).expanduser() / "evaluate" / "results.json"
    done = atomic.read_json(workdir / "evaluate" / "done.json")
    return {
        "held_out": _figures(atomic.read_json(own)),
        "other_data": _figures(atomic.read_json(path)),
        "date": done["finished"][:10],
        "jax": done["versions"]["jax"],
        "machine": environment["machine"],
    }


def _figures(results: Mapping[str, Any]) -> dict[str, Any]:
    judge = results["patches"]["judge"]
    names = ("cell_retrieval_top1", "num_cells")
    return {
        "judge": {key: judge[key] for key in ("frechet", "kid", "precision_recall")},
        "cells": {name: results[name] for name in names},
        "cells_by_judge": {name: results["judge"][name] for name in names},
        "memorisation": {
            key: results["memorisation"].get(key) for key in ("fraction", "p_value", "interval")
        },
    }


def markdown(collected: Mapping[str, Any]) -> str:
    """A row for either data."""
    titles = {"held_out": "of the training data set", "other_data": "of another data set"}
    head = [*_METRICS, "cell retrieval, top 1 (encoder / judge)", "memorised (p-value)"]
    lines = [f"| held-out patches | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for key, title in titles.items():
        lines.append(f"| {title} | {' | '.join(_cells(collected[key]))} |")
    machine, run = collected["machine"], f"{collected['date']}, jax {collected['jax']}"
    counts = [collected[key]["judge"]["frechet"]["counts"] for key in titles]
    cells = [collected[key]["cells"]["num_cells"] for key in titles]
    return (
        f"{machine['cores']} cores of {machine['processor']}; {run}. "
        f"By the judge, 95 % intervals:\n{counts[0][0]} and {counts[1][0]} single patches, "
        f"{cells[0]} and {cells[1]} cells of large images.\n\n" + "\n".join(lines) + "\n"
    )


def _cells(of: Mapping[str, Any]) -> list[str]:
    metrics = [
        format(figures.Shown(figures.at(of["judge"], key)), spec) for key, spec in _METRICS.values()
    ]
    both = (of[key]["cell_retrieval_top1"] for key in ("cells", "cells_by_judge"))
    copies = of["memorisation"]
    return [
        *metrics,
        " / ".join(f"{value:.2f}" for value in both),
        copies["interval"]
        if copies["fraction"] is None
        else f"{copies['fraction']:.3f} (p = {copies['p_value']:.1g})",
    ]
