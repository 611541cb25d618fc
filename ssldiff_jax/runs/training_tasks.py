"""What a stage that trains is trained on, and where."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssldiff_jax.autoencoder import autoencoder, lpips
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import schema, tasks
from ssldiff_jax.data.annotations import measures
from ssldiff_jax.diffusion import conditioning, distillation
from ssldiff_jax.diffusion import loss as diffusion_loss
from ssldiff_jax.prior import conditions
from ssldiff_jax.prior import loss as prior_loss
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.runs.workdir import provenance
from ssldiff_jax.train import boards, loop
from ssldiff_jax.weights import published

_TEXT_DIM = _IMPORTED_DIM = 384
"""As most published encoders have."""

Artifacts = artifacts_lib.Artifacts | None


def training_task(
    name: str, config: run_config.RunConfig, artifacts: Artifacts = None
) -> tasks.Task:
    """The task of a stage that trains, on what the stages before it made.

    Without that, shapes stand for what was trained, and embeddings that were computed elsewhere are
    as long as their first file says, or as if their dimension were 384: enough to say how large a
    training is, and to compile it.
    """
    # Called when asked for: the others may lack what they are built on.
    builders = {
        "encoder": lambda: config.encoder.model.task(),
        "judge": lambda: config.judge.model.task(),
        "autoencoder": lambda: _autoencoder(config, artifacts),
        "denoiser": lambda: _denoiser(config, artifacts),
        "distill": lambda: _distill(config, artifacts),
        "prior": lambda: _prior(config, artifacts),
        "tokens": lambda: _tokens(config, artifacts),
    }
    return builders[name]()


def training_run(context: stage.Context, name: str) -> loop.Run:
    """The Run of a stage that trains."""
    config, folders = context.config, context.folders
    return loop.Run(
        name,
        folders.of_stage(name),
        folders.checkpoints(name),
        context.mesh,
        config.mesh.rules,
        config.seed,
        provenance.past(folders, name),
        config.logging.looks,
        functools.partial(boards.opened, config.logging, about(config, folders, name)),
    )


def about(config: run_config.RunConfig, folders: folders_lib.Folders, name: str) -> boards.About:
    """What trackers are told of a stage: its own settings, and the seed."""
    section = provenance.plain(getattr(config, name, {}))
    values = schema.flatten({name: section}) | {"seed": config.seed}
    return boards.About(name, folders.workdir, folders.of_stage(name), values)


def embedding_dim(config: run_config.RunConfig) -> int:
    """Of the run's encoder; of embeddings computed elsewhere only their files know."""
    if config.embeddings.source:
        return config.embeddings.dim() or _IMPORTED_DIM
    return config.encoder.architecture.dim


def _autoencoder(
    config: run_config.RunConfig, artifacts: Artifacts
) -> autoencoder_loss.AutoencoderTask:
    section, bands = config.autoencoder, config.data.reading.multiband
    distance, params = _no_distance, {}
    # Weights that are used untrained compare no images.
    if (artifacts is None or section.train.num_steps) and section.loss.perceptual_weight:
        features = _lpips if section.loss.perceptual == "lpips" else _encoder_features
        distance, params = features(config, artifacts)
    examples = tasks.images(config.data.crops.patch_px, bands.count, bands.dtype)
    return autoencoder_loss.AutoencoderTask(section.model, section.loss, distance, params, examples)


Distance = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""(params, x, y) → distance of images by fixed features."""


def _no_distance(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.zeros(())


def _lpips(config: run_config.RunConfig, artifacts: Artifacts) -> tuple[Distance, Any]:
    model, see = lpips.LPIPS(), config.data.reading.multiband.shown_view.of_floats

    def distance(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return model.apply({"params": params}, see(x), see(y)).mean()

    if artifacts is not None:
        return distance, published.load_lpips(config.autoencoder.loss.lpips_weights)
    image = jnp.zeros((1, 64, 64, 3))
    return distance, jax.eval_shape(model.init, jax.random.key(0), image, image)["params"]


def _encoder_features(config: run_config.RunConfig, artifacts: Artifacts) -> tuple[Distance, Any]:
    """By patch tokens of the run's encoder."""
    architecture = config.encoder.architecture
    see = config.data.reading.multiband.encoded_view.of_floats

    def distance(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        tokens = functools.partial(architecture.tokens, params)
        return autoencoder_loss.feature_distance(tokens)(see(x), see(y))

    if artifacts is not None:
        return distance, artifacts.encoder().params
    # Shapes are enough to compile: no weights are made.
    return distance, published.abstract_encoder(architecture)


def _denoiser(config: run_config.RunConfig, artifacts: Artifacts) -> diffusion_loss.DenoisingTask:
    section, side = config.denoiser, config.window
    dim, channels = embedding_dim(config), section.chosen.latent_channels
    # Of no effect on shapes.
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    if artifacts is not None:
        dim, scaling = artifacts.embedding_dim, artifacts.scaling()
    model = conditioning.Denoiser(config.denoiser_sizes(dim))
    moments_shape = (side, side, config.autoencoder.model.num_stored)
    return diffusion_loss.DenoisingTask(
        model,
        scaling,
        section.process,
        section.loss.cond_drop_rate,
        section.loss.min_snr_gamma,
        moments_shape,
    )


def _distill(config: run_config.RunConfig, artifacts: Artifacts) -> distillation.DistillationTask:
    teacher = None if artifacts is None else artifacts.denoiser()[1]
    return distillation.DistillationTask(_denoiser(config, artifacts), config.curriculum, teacher)


def _prior(config: run_config.RunConfig, artifacts: Artifacts) -> prior_loss.PriorTask:
    """Without artifacts with texts, the largest part of a condition."""
    section = config.prior
    if artifacts is not None:
        facts = artifacts.grid_facts
        side, dim = facts["side"], facts["dim"]
        return section.task(artifacts_lib.condition_spec(facts["spec"]), (side, side, dim))
    sources, side = section.conditions, section.grids.side
    is_measured, marked = sources.measure != "none", config.data.annotations.classes
    spec = conditions.ConditionSpec(
        measures.label_names(sources.measure, marked) if is_measured else (),
        text_phrases=sources.text_phrases,
        text_dim=_TEXT_DIM,
        reads_labels=sources.captions == "measured",
        areas=measures.label_areas(sources.measure, marked) if is_measured else (),
    )
    return section.task(spec, (side, side, embedding_dim(config)))


def _tokens(config: run_config.RunConfig, artifacts: Artifacts) -> tokens_lib.TokensTask:
    per_side, white = config.embeddings.tokens_per_side, None
    if artifacts is not None:
        white = tokens_lib.WhiteTokens.load(artifacts.folders.of_stage("tokens"))
    return config.tokens.task(per_side, embedding_dim(config), config.num_cells, white)
