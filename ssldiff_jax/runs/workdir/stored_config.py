"""The config that a run or an export wrote down, by whatever version of the code."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs.command import catalog, listing

NAME = "config.json"
FORMAT = 2
"""Of work directories: raised where what an earlier version wrote would be misunderstood, or gone
on with by other random numbers. Format 1, which was not written down, had keys of other names, and
streams by sums of the seed and a number."""
_FORMAT_KEY = "format_version"


def of_run(folder: pathlib.Path) -> dict[str, Any]:
    """What a run that has a `config.json` was made with, and the values of configs/default.py for
    keys that came later.

    Of a stage that is being rebuilt it says what the old one was made with, which is the one that
    is read until the new is whole. Raises ConfigError for what is no config, ValueError for a
    damaged file.
    """
    # A run of earlier code has no values for keys that came later.
    config = complete(read(folder))
    # A command has written its values already, while what is read is still the old output.
    for beside in sorted(folder.glob(".*.new")):
        name = beside.name.removeprefix(".").removesuffix(".new")
        old = folder / name
        if name not in catalog.ROWS or catalog.ROWS[name].tool:
            continue  # the settings of a tool are not the run's
        if (old / "done.json").exists() and not (beside / "done.json").exists():
            config = _over(config, _sections(atomic.read_json(old / "stage.json")["config"]))
    return config


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The config in the `config.json` of a work directory, as it stands there.

    Raises ConfigError for what is no config or is of another format, ValueError for a damaged file.
    """
    path = folder / NAME
    values = atomic.read_json(path)
    if not isinstance(values, Mapping):
        raise schema.ConfigError(f"{path} must hold a config, got {type(values).__name__}")
    version = values.get(_FORMAT_KEY, 1)
    if version != FORMAT:
        raise schema.ConfigError(
            f"{folder} must be a work directory of format {FORMAT}, got format {version!r} of "
            "another version of the code: start the run again in another --workdir, or use that "
            "version"
        )
    return {key: value for key, value in values.items() if key != _FORMAT_KEY}


def stamped(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it is written into `config.json`, with the format of its work directory."""
    return {_FORMAT_KEY: FORMAT, **values}


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the default ones of keys that are not among them; none is replaced."""
    return _over(listing.defaults(), values)


def _over(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in values.items():
        are_sections = isinstance(defaults.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = _over(defaults[key], value) if are_sections else value
    return merged


def _sections(noted: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that a stage noted by their dotted names, as a tree."""
    sections: dict[str, Any] = {}
    for dotted, values in noted.items():
        *outer, last = dotted.split(".")
        inner = sections
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = values
    sections.pop("inputs", None)  # of files, and no key
    return sections
