"""The config that a run or an export wrote down, by whatever version of the code."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import config as config_lib
from ssldiff_jax.core import files
from ssldiff_jax.stages import listing


def read(path: pathlib.Path) -> dict[str, Any]:
    """The values of a `config.json`, with those of configs/default.py for keys that came after it.

    Raises ConfigError for what is no config, ValueError for a damaged file.
    """
    values = files.read_json(path)
    if not isinstance(values, Mapping):
        raise config_lib.ConfigError(f"{path} must hold a config, got {type(values).__name__}")
    return complete(values)


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the default ones of keys that are not among them; none is replaced."""
    return _over(listing.defaults(), values)


def _over(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    both = lambda key: isinstance(defaults.get(key), Mapping) and isinstance(values[key], Mapping)
    return dict(defaults) | {
        key: _over(defaults[key], values[key]) if both(key) else values[key] for key in values
    }
