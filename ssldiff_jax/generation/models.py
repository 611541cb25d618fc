"""The models that a generator generates with: of a run, or of published weights."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder
from ssldiff_jax.generation import prior_sampler, token_sampler
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import models as models_config
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.weights import published


class Network(NamedTuple):
    """A denoiser or its student, and its parameters."""

    model: conditioning.Denoiser
    params: Any


@dataclasses.dataclass(frozen=True)
class Models:
    """What a generator generates with; without an encoder it starts from embeddings only.

    `tokens` samples those of grids of the prior, for a denoiser that takes several a cell;
    `student` is the denoiser's, for few steps.
    """

    encoder: encoder.Encoder | None
    autoencoder: autoencoder.TrainedAutoencoder
    denoiser: conditioning.Denoiser
    params: Any
    prior: prior_sampler.PriorSampler | None = None
    tokens: token_sampler.TokenSampler | None = None
    student: Network | None = None

    def called(self, student: str) -> Network:
        """The network that `config.sample.student` asks for. Raises WorkdirError where there is no
        student."""
        if student == "off":
            return Network(self.denoiser, self.params)
        if self.student is None:
            raise folders_lib.WorkdirError(
                f"config.sample.student={student} needs the step distill to be done, got no "
                "student: --config.stages=distill"
            )
        return self.student

    @classmethod
    def of_run(cls, artifacts: artifacts_lib.Artifacts, step: int | None = None) -> "Models":
        """The models of a work directory, the denoiser's weights of a step or the latest."""
        denoiser, params = artifacts.denoiser(step)
        encoder_ = None if artifacts.config.embeddings.source else artifacts.encoder()
        folders = artifacts.folders
        # Of one that is trained on, checkpoints come and go while figures are still those of the
        # last; a run without an encoder is done with `prior` and has none.
        results = folders.of_stage("prior") / "results.json"
        trained = folders.is_done("prior") and results.exists()
        prior = prior_sampler.PriorSampler.of_run(artifacts) if trained else None
        tokens = None
        # With one token a cell the step is done and has trained nothing.
        if denoiser.config.tokens_per_side > 1 and folders.is_done("tokens"):
            tokens = token_sampler.TokenSampler.of_run(artifacts)
        student = None
        if artifacts.config.distill.visits and folders.is_done("distill"):
            student = Network(*artifacts.student())
        stage = artifacts.autoencoder()
        return cls(encoder_, stage, denoiser, params, prior, tokens, student)

    @classmethod
    def of_weights(cls, path: str | pathlib.Path, config: run_config.RunConfig) -> "Models":
        """The models of a published checkpoint; the encoder of `config.encoder.weights`, and the
        first stage of `config.autoencoder.weights` where it is not in the checkpoint itself."""
        file, own = published.ModelFile.read(path), config.autoencoder.weights
        models = cls.of_file(file, config, published.ModelFile.read(own) if own else file)
        if not config.encoder.weights:
            return models
        embeds = encoder_of(config.encoder.weights, config.encoder)
        return dataclasses.replace(models, encoder=embeds)

    @classmethod
    def of_file(
        cls,
        file: published.ModelFile,
        config: run_config.RunConfig,
        first_stage: published.ModelFile,
    ) -> "Models":
        """The denoiser of a file and the autoencoder of `first_stage`, without an encoder."""
        sizes, section = published.conditioner_sizes(file), config.denoiser
        # The file's own: some checkpoints have a second embedding, of a region, and some have not.
        denoiser = dataclasses.replace(section, region_dim=sizes.region).model(
            sizes.patch, config.num_cells, config.embeddings.tokens_per_side
        )
        model = config.autoencoder.model
        params = published.load_autoencoder(first_stage, model)
        scaling = published.latent_scaling(file, model)
        return cls(
            None,
            autoencoder.TrainedAutoencoder(model, params, scaling),
            conditioning.Denoiser(denoiser),
            published.load_denoiser(file, denoiser),
        )


def encoder_of(path: str, section: models_config.EncoderSection) -> encoder.Encoder:
    """The encoder of a file of weights, with the architecture that a config names."""
    file = published.ModelFile.read(path)
    params = published.load_encoder(file, section.name, section.architecture)
    names = ("origin", "token_origin", "whitening")
    origin, of_tokens, whitening = (file.tensors.get(name) for name in names)
    return encoder.Encoder(
        section.architecture,
        params,
        0.0 if origin is None else origin,
        token_origin=of_tokens,
        whitening=whitening,
    )
