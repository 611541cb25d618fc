"""Lengths, scales and sizes of pictures in words: µm for slides, metres for scenes."""

import math

from ssldiff_jax.core import pixel_units
from ssldiff_jax.report import charts

_OBJECTIVE = 10.0
"""µm per pixel of a scan at 1×, so that 0.5 µm are 20× and 0.25 µm are 40×."""

_UNITS = ((1e9, "km"), (1e6, "m"), (1e3, "mm"), (1.0, "µm"), (1e-3, "nm"))


def length(um: float) -> str:
    """A length of `um` µm in the unit that leaves it between 1 and 1000."""
    # What rounding leaves just below 1000 µm is 1 mm.
    factor, unit = next(((f, u) for f, u in _UNITS if um >= f * (1 - 1e-9)), _UNITS[-1])
    return f"{_short(um / factor)} {unit}"


def size(height: int, width: int, mpp: float | None) -> str:
    """Width × height in pixels and, where `mpp` is known, in µm or metres."""
    pixels = f"{width:,} × {height:,} px"
    if not mpp:
        return pixels
    # One unit for both sides.
    largest = max(height, width) * mpp
    factor, unit = next((f, u) for f, u in _UNITS if largest >= f or f == _UNITS[-1][0])
    shown = " × ".join(_short(side * mpp / factor) for side in (width, height))
    return f"{pixels}, {shown} {unit}"


def magnification(mpp: float) -> str:
    """The objective that a scan of `mpp` µm per pixel corresponds to, such as 20×; two digits, as
    scanners differ in the third."""
    value = float(f"{_OBJECTIVE / mpp:.2g}")
    return f"{_short(value)}×"


def resolution(mpp: float | None) -> str:
    """Length of a pixel, and of a slide the magnification; empty where `mpp` is not known."""
    if not mpp:
        return ""
    if pixel_units.is_scene(mpp):
        return f"{length(mpp)} per pixel"
    return f"{_short(mpp)} µm per pixel ({magnification(mpp)})"


def _short(value: float) -> str:
    """Three significant digits without zeros at the end."""
    if not math.isfinite(value):
        return charts.number(value)
    value = float(f"{value:.3g}")
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"
