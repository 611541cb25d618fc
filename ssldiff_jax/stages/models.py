"""The models that a generator draws with: of a run, or of published weights."""

import dataclasses
import pathlib
from typing import Any

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import grid_prior, parts, stage
from ssldiff_jax.weights import published


@dataclasses.dataclass(frozen=True)
class Models:
    """What a generator draws with; without an encoder it starts from embeddings only."""

    encoder: encoder.Encoder | None
    autoencoder: autoencoder.TrainedAutoencoder
    denoiser: conditioning.Denoiser
    params: Any
    prior: grid_prior.GridPrior | None = None

    @classmethod
    def of_run(cls, context: stage.Context, step: int | None = None) -> "Models":
        """The models of a work directory, the denoiser's weights of a step or the latest."""
        denoiser, params = parts.load_denoiser(context, step)
        imported = bool(context.config.embeddings.source)
        encoder_ = None if imported else parts.load_encoder(context)
        trained = (context.folder("prior") / "results.json").exists()
        prior = grid_prior.GridPrior.of_run(context) if trained else None
        return cls(encoder_, parts.load_autoencoder(context), denoiser, params, prior)

    @classmethod
    def of_weights(cls, path: pathlib.Path, config: run_config.RunConfig) -> "Models":
        """The models of a published checkpoint; the encoder of `config.encoder.weights`, and the
        first stage of `config.autoencoder.weights` where it is not in the checkpoint itself."""
        section = config.denoiser
        file = published.ModelFile.read(path)
        sizes = published.conditioner_sizes(file)
        denoiser = dataclasses.replace(section, region_dim=sizes.region).model(sizes.patch)
        first_stage = config.autoencoder.model
        scaling = published.latent_scaling(file, first_stage)
        own = config.autoencoder.weights
        params = published.load_autoencoder(
            published.ModelFile.read(own) if own else file, first_stage
        )
        return cls(
            _published_encoder(config.encoder),
            autoencoder.TrainedAutoencoder(first_stage, params, scaling),
            conditioning.Denoiser(denoiser),
            published.load_denoiser(file, denoiser),
        )


def _published_encoder(section: run_config.EncoderSection) -> encoder.Encoder | None:
    if not section.weights:
        return None
    file = published.ModelFile.read(section.weights)
    params = published.load_encoder(file, section.name, section.architecture)
    return encoder.Encoder(section.architecture, params, file.tensors.get("origin", 0.0))
