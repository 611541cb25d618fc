"""What is known of how much a prior hears, and what a request should be told of it."""

import logging
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ssldiff_jax.evaluation.metrics import heard
from ssldiff_jax.formats import atomic

_LOG = logging.getLogger(__name__)

Figures = Mapping[str, Any]
"""`heard` of the step `imagine`: by way of conditioning its figures, and what chance is."""


def of_run(folder: pathlib.Path, prior: str) -> Figures:
    """The figures that a run's step `imagine` wrote into its `folder` of the prior with this
    digest; empty where it measured none, or another."""
    path = folder / "results.json"
    results = atomic.read_json(path) if path.exists() else {}
    return results.get("heard", {}) if results.get("prior") == prior else {}


def warn(figures: Figures, kinds: Iterable[str]) -> None:
    """Say which of the kinds that a request has images of this prior show no better than chance."""
    for kind in kinds:
        # Labels have no row of their own where nothing else is said.
        beside = figures.get("all_conditions") if kind == "labels" else None
        row = figures.get(f"{kind}_alone") or beside
        if row is None or row["chance"] == 1:
            continue
        found, chance = row["figures"][heard.RETRIEVAL], row["chance"]
        has_interval = found["low"] is not None
        least = found["low"] if has_interval else found["value"]
        if least is None or least > chance:
            continue
        ends = f" (95 % interval from {found['low']:.0%})" if has_interval else ""
        _LOG.warning(
            "this prior was not found to hear %s: among %d conditions its %s show their own in "
            "%.0f %%%s, and chance is %.0f %%",
            kind, round(1 / chance), row["shown_by"], 100 * found["value"], ends, 100 * chance,
        )  # fmt: skip
