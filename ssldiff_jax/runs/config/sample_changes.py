"""Changes of the section `sample`, as words of a config say them."""

import ast
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.config import sample as sample_config


def changed(config: run_config.RunConfig, changes: str, name: str) -> sample_config.SampleSection:
    """config.sample with changes, apart by spaces: "windows.mode=paper guidance.scale=4"; `w/8` is
    an eighth of a window. `name` is the key that says them.

    Raises ConfigError for a key that does not exist or a value that does not fit.
    """
    values = dataclasses.asdict(config.sample)
    for change in changes.split():
        path, _, text = change.partition("=")
        *sections, key = path.split(".")
        part = values
        for section in sections:
            part = part.get(section)
            if not isinstance(part, Mapping):
                raise schema.ConfigError(f"{name}: no section in {change!r}")
        if key not in part:
            hint = schema.nearest_path(key, part)
            raise schema.ConfigError(f"{name}: no key in {change!r}{hint}")
        part[key] = _value(text, config.window)
    section = schema.build(sample_config.SampleSection, values, "config.sample")
    try:
        section.solver.require_within(config.denoiser.schedule)
        if config.distill.visits:
            config.require_student(section)
    except ValueError as error:
        raise schema.ConfigError(f"{name}: {error}, in {changes!r}") from None
    return section


def _value(text: str, window: int) -> Any:
    fraction = re.fullmatch(r"w/(\d+)", text)
    if fraction:
        return window // int(fraction.group(1))
    try:
        return ast.literal_eval(text)
    # A word, such as paper: the shell has taken its quotes.
    except (ValueError, SyntaxError):
        return text
