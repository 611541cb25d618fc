"""A model on the data it was trained on, held out, and on other data, as Markdown."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.report import figures

_JUDGED = {
    "Fréchet": ("frechet", ".2f"),
    "KID": ("kid", ".3f"),
    "precision": ("fidelity.precision", ".2f"),
    "recall": ("fidelity.recall", ".2f"),
}
"""Of patches drawn alone, by the judge."""


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
        "held out": _figures(atomic.read_json(own)),
        "never seen": _figures(atomic.read_json(path)),
        "date": done["finished"][:10],
        "jax": done["versions"]["jax"],
        "machine": environment["machine"],
    }


def _figures(results: Mapping[str, Any]) -> dict[str, Any]:
    judge = results["patches"]["judge"]
    names = ("cell_retrieval_top1", "num_cells")
    return {
        "judge": {key: judge[key] for key in ("frechet", "kid", "fidelity")},
        "cells": {name: results[name] for name in names},
        "cells by judge": {name: results["judge"][name] for name in names},
        "memorisation": {
            key: results["memorisation"].get(key) for key in ("fraction", "p_value", "interval")
        },
    }


def markdown(found: Mapping[str, Any]) -> str:
    """A row for either data."""
    titles = {"held out": "of the data of training", "never seen": "of other data"}
    head = [*_JUDGED, "cells found (encoder / judge)", "nearer to training (by chance)"]
    lines = [f"| held-out patches | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for key, title in titles.items():
        lines.append(f"| {title} | {' | '.join(_cells(found[key]))} |")
    machine, counts = found["machine"], [found[key]["judge"]["frechet"]["counts"] for key in titles]
    cells = [found[key]["cells"]["num_cells"] for key in titles]
    return (
        f"{machine['cores']} cores of {machine['processor']}; {found['date']}, jax {found['jax']}. "
        f"By the judge, 95 % intervals:\n{counts[0][0]} and {counts[1][0]} patches drawn alone, "
        f"{cells[0]} and {cells[1]} cells of large images.\n\n" + "\n".join(lines) + "\n"
    )


def _cells(of: Mapping[str, Any]) -> list[str]:
    judged = [
        format(figures.Shown(figures.at(of["judge"], key)), spec) for key, spec in _JUDGED.values()
    ]
    both = (of[key]["cell_retrieval_top1"] for key in ("cells", "cells by judge"))
    copies = of["memorisation"]
    return [
        *judged,
        " / ".join(f"{value:.2f}" for value in both),
        copies["interval"]
        if copies["fraction"] is None
        else f"{copies['fraction']:.3f} (p = {copies['p_value']:.1g})",
    ]
