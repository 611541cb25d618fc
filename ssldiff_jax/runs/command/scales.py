"""Scales that a config says in metres, before it is written down: in microns, as all code reads."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from ssldiff_jax.core import pixel_units


def in_microns(values: Mapping[str, Any], said: Collection[str] = ()) -> dict[str, Any]:
    """A config without metres; `said` are the keys that the command itself sets, which go before
    what a file or an earlier run set.

    Raises ConfigError where one scale is said twice, and otherwise.
    """
    resolved = dict(values)
    for name, scales in pixel_units.UNSAID_MPP.items():
        section = resolved[name] = dict(values[name])
        for field, unsaid in scales.items():
            in_metres = pixel_units.in_metres(field)
            mpp, metres = section[field], section[in_metres]
            by_command = (f"{name}.{field}" in said, f"{name}.{in_metres}" in said)
            if by_command == (True, False):
                metres = 0.0
            elif by_command == (False, True) and metres:
                mpp = unsaid
            elif by_command == (True, True):
                unsaid = math.nan  # its default was said on purpose
            key = f"config.{name}.{field}"
            section[field] = pixel_units.resolved(key, mpp, metres, unsaid=unsaid)
            section[in_metres] = 0.0
    return resolved
