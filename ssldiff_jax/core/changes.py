"""What may change about a training that has begun, said by the metadata of each config field.

`free`: changes how fast, where or how visibly, and no result. It may change at any time, and makes
nothing outdated. `onward`: the steps that were done stay what they are, and those to come follow
the new value. It may change while steps are left, and is recorded with its step. `fixed`, and every
field without a mark: the state so far would not fit; the training starts again.
"""

import dataclasses
from typing import Any, Literal

Kind = Literal["free", "onward", "fixed"]


def free(why: str) -> dict[str, Any]:
    """Marks a field that changes no result."""
    return {"digest": False, "kind": "free", "why": why}


def onward(why: str) -> dict[str, Any]:
    """Marks a field that may change from a step on."""
    return {"kind": "onward", "why": why}


def fixed(why: str) -> dict[str, Any]:
    """Marks a field that must stay, where one could think otherwise."""
    return {"kind": "fixed", "why": why}


def kinds(config: Any, prefix: str = "") -> dict[str, Kind]:
    """Dotted key → kind, of all leaves of a dataclass; what lies in a free field is free."""
    kinds_of_keys: dict[str, Kind] = {}
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        kind = field.metadata.get("kind", "fixed")
        if not field.metadata.get("digest", True):
            kind = "free"
        if dataclasses.is_dataclass(value):
            inner = kinds(value, f"{key}.")
            kinds_of_keys |= dict.fromkeys(inner, kind) if kind == "free" else inner
        else:
            kinds_of_keys[key] = kind
    return kinds_of_keys
