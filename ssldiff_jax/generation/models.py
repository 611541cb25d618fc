"""The models that a generator generates with: of a run, or of published weights."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.diffusion import conditioning, control
from ssldiff_jax.encoders import encoder
from ssldiff_jax.formats import hub
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.generation import prior_sampler, token_sampler
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs.config import models as models_config
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib
from ssldiff_jax.weights import diffusers_folder, published, transformers


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
    def of_run(
        cls, artifacts: artifacts_lib.Artifacts, step: int | None = None, *, student: bool = True
    ) -> "Models":
        """The models of a work directory, the denoiser's weights of a step or the latest; of
        published ones that no step of it has taken over, those of their files. Without a student
        where none is wanted: another may be in the making."""
        if step is None and artifacts.folders.reads_weights:
            return cls.of_weights(artifacts.config.denoiser.weights, artifacts.config)
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
        wanted = student and artifacts.config.distill.visits and folders.is_done("distill")
        taught = Network(*artifacts.student()) if wanted else None
        stage = artifacts.autoencoder()
        return cls(encoder_, stage, denoiser, params, prior, tokens, taught)

    @classmethod
    def of_weights(cls, path: str | pathlib.Path, config: run_config.RunConfig) -> "Models":
        """The models of a published checkpoint; the encoder of `config.encoder.weights`, and the
        first stage of `config.autoencoder.weights` where it is not in the checkpoint itself.

        Raises WeightsError for files that do not fit the config or one another.
        """
        file, own = published.ModelFile.read(path, "transformer"), config.autoencoder.weights
        folder = hub.local(path)
        if own or diffusers_folder.is_pipeline(folder):
            first_stage = published.ModelFile.read(own or path, "vae")
        else:
            first_stage = file
        about = diffusers_folder.config(folder / "scheduler", "scheduler_config.json")
        transformers.require_process(str(path), about, config.denoiser.process)
        models = cls.of_file(file, config, first_stage, _adapters(config.denoiser))
        if not config.encoder.weights:
            return models
        embeds = encoder_of(config.encoder.weights, config)
        dim = models.denoiser.config.embedding_dim
        if embeds.dim != dim:
            raise reader.WeightsError(
                f"{path} must be led by an encoder of {dim} numbers, got {config.encoder.name} of "
                f"{embeds.dim} ({config.encoder.weights})"
            )
        return dataclasses.replace(models, encoder=embeds)

    @classmethod
    def of_file(
        cls,
        file: published.ModelFile,
        config: run_config.RunConfig,
        first_stage: published.ModelFile,
        adapters: transformers.Adapters | None = None,
    ) -> "Models":
        """The denoiser of a file and the autoencoder of `first_stage`, without an encoder."""
        # The file's own: some checkpoints have a second embedding, of a region, and some have not.
        found = published.conditioner_sizes(file, config.denoiser_sizes(0))
        denoiser = dataclasses.replace(config.denoiser_sizes(found.patch), region_dim=found.region)
        if adapters is not None and adapters.control is not None:
            beside = control.Control(adapters.control.depth, config.denoiser.control.scale)
            denoiser = dataclasses.replace(denoiser, control=beside)
        model = config.autoencoder.model
        params = published.load_autoencoder(first_stage, model)
        scaling = published.latent_scaling(file, model)
        # An export has it beside its tensors, whatever the config of its run says.
        if config.autoencoder.latent_scaling == "published" and "latent_scale" not in file.tensors:
            scaling = diffusers_folder.scaling(first_stage.path, first_stage.about, model)
        return cls(
            None,
            autoencoder.TrainedAutoencoder(model, params, scaling),
            conditioning.Denoiser(denoiser),
            published.load_denoiser(file, denoiser, adapters),
        )


def _adapters(section: models_config.DenoiserSection) -> transformers.Adapters:
    """The LoRA and the ControlNet that a config names."""
    net, path = None, section.control.weights
    if path:
        file = published.ModelFile.read(path, "controlnet")
        net = transformers.PublishedControl(file.path, file.tensors)
    return transformers.Adapters(section.lora, net)


def encoder_of(path: str, config: run_config.RunConfig) -> encoder.Encoder:
    """The encoder of a file of weights, with the architecture that a config names."""
    file, section = published.ModelFile.read(path), config.encoder
    params = published.load_encoder(file, section.name, section.architecture)
    names = ("origin", "token_origin", "whitening")
    origin, of_tokens, whitening = (file.tensors.get(name) for name in names)
    return encoder.Encoder(
        section.architecture,
        params,
        0.0 if origin is None else origin,
        token_origin=of_tokens,
        whitening=whitening,
        view=config.data.reading.multiband.encoded_view,
    )
