"""Scales of pixels in words (metres for scenes, microns for slides), and from one to the other."""

import decimal
import math
from typing import Any

from ssldiff_jax.core import schema

SCENE_MPP = 1000.0
"""µm per pixel from which an image shows the ground and not tissue: no slide is that coarse, no
raster that fine."""

UNSAID_MPP = {
    "data": {"mpp": 0.0, "patch_mpp": 0.5},
    "generate": {"mpp": 0.0},
    "variations": {"mpp": 0.0},
}
"""Sections of a config whose scales can be said in metres, too: field → what it is by
configs/default.py, where nobody set it."""

_UNITS = ((1e9, "km"), (1e6, "m"), (1e3, "mm"))
_TOLERANCE = 1e-9  # what a scale may lose on its way through another unit


def is_scene(mpp: float) -> bool:
    """Whether pixels of `mpp` µm show ground (metres) and not tissue (µm)."""
    return mpp >= SCENE_MPP


def length(mpp: float) -> str:
    """That of a pixel in words: 0.5 µm of a slide, 5 m of a scene."""
    if not is_scene(mpp):
        return f"{mpp:g} µm"
    factor, unit = next((f, u) for f, u in _UNITS if mpp >= f * (1 - _TOLERANCE))
    return f"{mpp / factor:g} {unit}"


def per_pixel(mpp: float) -> str:
    """A scale in words: 0.5 µm/px of a slide, 5 m/px of a scene."""
    return f"{length(mpp)}/px"


def patch_key(mpp: float) -> str:
    """The key of the config that says the scale of patches in the unit of what they show."""
    return "config.data.patch_metres" if is_scene(mpp) else "config.data.patch_mpp"


def microns(metres: float) -> float:
    """The same length in µm, rounded once: 0.1 m are the very number that 1e5 is."""
    return float(decimal.Decimal(repr(float(metres))).scaleb(6))


def in_metres(key: str) -> str:
    """The key beside one of microns that says the same in metres."""
    return key.removesuffix("mpp") + "metres"


def resolved(key: str, mpp: float, metres: float, *, unsaid: float) -> float:
    """The one scale, µm per pixel, of a config key `…mpp` and of that in metres beside it, which is
    0 where it says none; nobody set the former where it is `unsaid`.

    Raises ConfigError for metres that are no length, and where the two differ.
    """
    if not (math.isfinite(metres) and metres >= 0):
        raise schema.ConfigError(f"{in_metres(key)} must be metres per pixel, or 0, got {metres}")
    own = microns(metres)
    if not metres or math.isclose(own, mpp, rel_tol=_TOLERANCE):
        return mpp
    if mpp != unsaid:
        raise schema.ConfigError(
            f"{in_metres(key)} and {key} must say one scale, got {metres:g} m ({own:g} µm) and "
            f"{mpp:g} µm: set one of them"
        )
    return own


def settle(section: Any, name: str) -> None:
    """Take scales of a config section that is being made from its fields in metres into those in
    microns; the former become 0.

    Raises ConfigError, as `resolved` does.
    """
    for field, value in UNSAID_MPP[name].items():
        given = getattr(section, field), getattr(section, in_metres(field))
        # It is frozen.
        object.__setattr__(section, field, resolved(f"config.{name}.{field}", *given, unsaid=value))
        object.__setattr__(section, in_metres(field), 0.0)
