"""Turn a config tree into frozen dataclasses, and refuse what does not fit.

The dataclasses are the schema: a key no dataclass declares is an error that names the nearest one.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that cannot be run; the message names the key."""


def build(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Build the dataclass `cls` from a mapping, checking names and types at every level.

    Raises ConfigError for unknown, missing or wrongly typed keys.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}.{key} is no config key{_nearest(key, fields)}")
    built = {}
    for name, field in fields.items():
        if name not in values:
            if field.default is dataclasses.MISSING:
                raise ConfigError(f"{where}.{name} is missing")
            continue
        built[name] = _convert(hints[name], values[name], f"{where}.{name}")
    try:
        return cls(**built)
    # Names its key already; what __post_init__ raises is a plain ValueError of one section.
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a section, got {value!r}")
        return build(hint, value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where} must be one of {typing.get_args(hint)}, got {value!r}")
        return value
    if origin is tuple:
        item, *_ = typing.get_args(hint)
        # JSON has no tuples: config.json gives lists.
        if not isinstance(value, tuple | list):
            raise ConfigError(f"{where} must be a tuple, got {value!r}")
        return tuple(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        # `X | None` is the one union that the schema has.
        options = [h for h in typing.get_args(hint) if h is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # Not isinstance, which takes True for an int.
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise ConfigError(f"{where} must be {hint.__name__}, got {value!r}")
    return value


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(known)}"


def nearest_path(path: str, values: Mapping[str, Any]) -> str:
    """A hint that names the known dotted key nearest to `path`."""
    return _nearest(path, dict.fromkeys(flatten(values)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → leaf value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
