"""The schema of a run."""

import dataclasses
import typing

import pytest

from configs import default, demo
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


@pytest.mark.parametrize("per_side", [1, 2, 4, 8])
@pytest.mark.parametrize("condition_on", ["patch", "cells"])
def test_the_denoiser_of_a_config_is_conditioned_on_its_tokens(condition_on, per_side):
    config = demo.get_config()
    config.embeddings.tokens_per_side = per_side
    config.data.crops.condition_on = condition_on
    sizes = schema.build(run_config.RunConfig, config.to_dict()).denoiser_sizes(96)
    # Of cells four, each with the row and column of its place.
    each = per_side * per_side * 96
    assert sizes.condition_dim == (each if condition_on == "patch" else 4 * (each + 2))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("embeddings.tokens_per_side", 3, "config.embeddings.tokens_per_side must divide the "
         r"encoder's 8 tokens along a side \(64 px in patches of 8\), got 3"),
        ("embeddings.tokens_per_side", 0, "must divide the encoder's 8 tokens .*, got 0"),
        ("tokens.max_offset", 2, "config.tokens.max_offset must be at most half of embeddings."
         "tokens_per_side=2, got 2"),
        ("tokens.max_offset", -1, "config.tokens.max_offset must be at least 0, got -1"),
        ("denoiser.region_dim", 4, "config.denoiser.region_dim must be 0 where embeddings.tokens_"
         "per_side is above 1, got 4"),
        ("embeddings.source", "x.npy", r"there is no encoder, got .*embeddings.tokens_per_side=2 "
         r"\(must be 1\)"),
    ],
)  # fmt: skip
def test_tokens_that_no_encoder_has_are_refused(key, value, message):
    config = demo.get_config()
    config.embeddings.tokens_per_side = 2
    config.update_from_flattened_dict({key: value})
    with pytest.raises(schema.ConfigError, match=message):
        schema.build(run_config.RunConfig, config.to_dict())
