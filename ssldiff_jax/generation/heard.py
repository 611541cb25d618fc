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
        # Where there is one kind that pixels show, it is all conditions.
        row = figures.get(f"{kind}_alone") or figures.get("all_conditions")
        if row is None:
            continue
        found, chance = row["figures"][heard.RETRIEVAL], row["chance"]
        least = found["value"] if found["low"] is None else found["low"]
        if least is not None and least <= chance:
            _LOG.warning(
                "the prior was not found to hear %s: among %d conditions its images show their own "
                "in %.0f %% (at least %.0f %%), chance is %.0f %%; see imagine/results.json",
                kind, round(1 / chance), 100 * found["value"], 100 * least, 100 * chance,
            )  # fmt: skip
