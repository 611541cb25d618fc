"""The schema of a run."""

import dataclasses
import typing

from configs import default
from ssldiff_jax.core import schema
from ssldiff_jax.runs.config import run as run_config


def reachable(kind, found=None):
    """The dataclasses that a type holds in its fields, in tuples, unions and literals too."""
    found = {} if found is None else found
    if dataclasses.is_dataclass(kind):
        if kind not in found:
            found[kind] = None
            for hint in typing.get_type_hints(kind).values():
                reachable(hint, found)
        return list(found)
    for part in typing.get_args(kind):
        reachable(part, found)
    return list(found)


def test_no_section_has_a_default_of_its_own():
    """A key has one default, in configs/defaults: a second one is a value that an older record of
    a run would silently take."""
    kinds = reachable(run_config.RunConfig)
    assert len(kinds) > 50
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    second = [
        f"{kind.__module__}.{kind.__name__}.{field.name}"
        for kind in kinds
        for field in dataclasses.fields(kind)
        if (field.default, field.default_factory) != missing
    ]
    assert second == []


def test_every_field_is_a_key_and_every_key_a_field():
    def keys(kind, prefix=""):
        for name, hint in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                yield from keys(hint, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    wanted = schema.flatten(default.get_config().to_dict())
    assert sorted(keys(run_config.RunConfig)) == sorted(wanted)
