"""Figures of generated grids as lines of the log."""

import logging
from collections.abc import Mapping
from typing import Any

_LOG = logging.getLogger(__name__)


def log(what: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each way of making grids."""
    for name, figures in results.items():
        line = ", ".join(f"{key} {_in_words(value)}" for key, value in figures.items())
        _LOG.info("%s, %s: %s", what, name, line)


def _in_words(figure: float | Mapping[str, Any] | None) -> str:
    """A number; of a distance that with its bias taken off, or what there is."""
    if figure is None:
        return "too few to measure"
    if isinstance(figure, float):
        return f"{figure:.3g}"
    if figure["uncorrected"] is None:
        return figure["interval"]
    if figure["corrected"] is None:
        return f"{figure['uncorrected']:.3g} (uncorrected; {figure['interval']})"
    return f"{figure['corrected']:.3g} ({figure['low']:.3g} … {figure['high']:.3g})"
