"""The files of an exported prior and of its second level, under names of our own."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ssldiff_jax.formats import hub
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import prior_sampler, token_sampler
from ssldiff_jax.prior import conditions, network, whitening
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.runs import artifacts, region_labels
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.weights import names, published

_LOG = logging.getLogger(__name__)

HeadFn = Callable[..., dict[str, str]]

# Before the names of a model's own tensors, so that no other model's are taken for them.
_UNDER, _UNDER_TOKENS = "prior", "tokens"
_WHITE, _PARTS = ("tokens", "whole"), ("mean", "matrix", "inverse")


def beside(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Where a model that a card names lies: in the folder of the export, or, by its address, in the
    cache of the Hub; None where it is not to be had."""
    if not hub.is_address(name):
        path = folder / name
        return path if name and path.exists() else None
    try:
        return hub.local(name)
    except reader.WeightsError as error:
        _LOG.warning("the export is read without a model that it names: %s", error)
        return None


def _abstract_prior(section: Any, spec: conditions.ConditionSpec, side: int, dim: int) -> Any:
    """Shapes of a prior's parameters."""
    return names.abstract(
        network.GridDenoiser(section.network, spec),
        jnp.zeros((1, side, side, dim)),
        jnp.zeros(1, jnp.int32),
        jnp.zeros((1, spec.dim)),
    )


def write_prior(path: pathlib.Path, prior: prior_sampler.PriorSampler, head: HeadFn) -> None:
    """Write a prior; `head` makes metadata of what its reader needs."""
    white = prior.white
    published.export(
        path,
        (names.own_names(prior.params, _UNDER), prior.params),
        metadata=head(
            side=prior.side,
            spec=dataclasses.asdict(prior.spec),
            scales=prior.scales,
            heard=prior.heard,
        ),
        mean=white.mean,
        matrix=white.matrix,
        inverse=white.inverse,
    )


def read_prior(path: pathlib.Path, config: run_config.RunConfig) -> prior_sampler.PriorSampler:
    """A prior, with its text encoder where that lies beside it. Raises WeightsError."""
    head = reader.metadata(path)
    if missing := {"side", "spec", "scales"} - head.keys():
        raise reader.WeightsError(f"{path}: expected an exported prior, got no {sorted(missing)}")
    side, sizes, scales = (json.loads(head[key]) for key in ("side", "spec", "scales"))
    spec = artifacts.condition_spec(sizes)
    tensors = reader.read(path)
    white = whitening.Whitening(tensors["mean"], tensors["matrix"], tensors["inverse"])
    like = _abstract_prior(config.prior, spec, side, len(white.mean))
    params = names.own_names(like, _UNDER).load(tensors, like, str(path))
    sources, text = config.prior.conditions, None
    if (reads := beside(path.parent, sources.text_encoder)) is not None:
        sources = dataclasses.replace(sources, text_encoder=str(reads))
        text = region_labels.text_encoder(sources)
    # Files of before it was measured know nothing of it.
    heard = json.loads(head.get("heard", "{}"))
    return prior_sampler.PriorSampler(config.prior, side, spec, scales, white, params, text, heard)


def write_tokens(path: pathlib.Path, tokens: token_sampler.TokenSampler, head: HeadFn) -> None:
    """Write the second level of a prior."""
    white = {
        f"{name}_{part}": getattr(getattr(tokens.white, name), part)
        for name in _WHITE
        for part in _PARTS
    }
    published.export(
        path,
        (names.own_names(tokens.params, _UNDER_TOKENS), tokens.params),
        metadata=head(tokens_per_side=tokens.per_side, tokens_of=tokens.encoder),
        **white,
    )


def read_tokens(
    path: pathlib.Path, config: run_config.RunConfig, encoder: str
) -> token_sampler.TokenSampler:
    """The second level of a prior.

    Raises WeightsError for one of other tokens than the denoiser takes: as many a cell, of the
    encoder of this digest.
    """
    head, expected = reader.metadata(path), config.embeddings.tokens_per_side
    if missing := {"tokens_per_side", "tokens_of"} - head.keys():
        raise reader.WeightsError(
            f"{path}: expected an exported second level of a prior, got no {sorted(missing)}"
        )
    per_side, digest = (json.loads(head[key]) for key in ("tokens_per_side", "tokens_of"))
    if per_side != expected:
        raise reader.WeightsError(
            f"{path} must sample the denoiser's {expected} × {expected} tokens a cell, got "
            f"{per_side} × {per_side}"
        )
    if digest != encoder:
        raise reader.WeightsError(
            f"{path} must sample tokens of the encoder {encoder} that the denoiser takes, "
            f"got those of {digest}"
        )
    tensors = reader.read(path)
    white = tokens_lib.WhiteTokens(
        *(whitening.Whitening(*(tensors[f"{name}_{part}"] for part in _PARTS)) for name in _WHITE)
    )
    like = _abstract_prior(config.tokens, tokens_lib.spec(white.dim), per_side, white.dim)
    params = names.own_names(like, _UNDER_TOKENS).load(tensors, like, str(path))
    return token_sampler.TokenSampler(config.tokens, per_side, digest, white, params)
