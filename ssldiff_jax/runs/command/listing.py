"""What a command can name: stages, configs, and keys with the comments of their source."""

import importlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.core import schema, schema_comments
from ssldiff_jax.runs.command import catalog, shipped


def lines(what: str, values: Mapping[str, Any] | None = None) -> list[str]:
    """Lines about `stages`, `configs`, `keys`, the keys of one section, or about all ("").

    Keys have the values of `values`, or the default ones. Raises ConfigError for no key.
    """
    parts = {"stages": catalog.lines, "configs": _configs}
    if what in parts:
        return [f"{what}:", *parts[what](), ""]
    prefix = "" if what in ("", "keys") else what
    key_lines = ["keys (--config.KEY=VALUE):", *_keys(values or defaults(), prefix)]
    return key_lines if what else [*lines("stages"), *lines("configs"), *key_lines]


def _configs() -> list[str]:
    paths = sorted(shipped.CONFIGS.glob("*.py"))
    width = max(len(path.stem) for path in paths)
    return [f"  configs/{p.name:<{width + 3}} {schema_comments.about(p)}" for p in paths]


def _keys(values: Mapping[str, Any], prefix: str) -> list[str]:
    comments = schema_comments.comments(shipped.CONFIGS / "default.py")
    flat = schema.flatten(values)

    def belongs(key: str) -> bool:
        return not prefix or f"{key}.".startswith(f"{prefix.removeprefix('config.')}.")

    key_lines = []
    for key, comment in comments.items():
        if belongs(key):
            key_lines += [f"  # {line}" for line in comment.splitlines()]
            # A section has a comment and no value.
            key_lines += [f"  {key} = {flat[key]!r}"] if key in flat else []
    if not key_lines:
        raise schema.ConfigError(
            f"--list must name stages, configs, keys or a key, got {prefix!r}"
            f"{schema.nearest_path(prefix, values)}"
        )
    return key_lines


def defaults() -> Mapping[str, Any]:
    """The values of configs/default.py beside this package, whatever else is called `configs`."""
    with shipped.importable():
        return importlib.import_module("configs.default").get_config().to_dict()
