"""The stages, in order, and the tools."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.formats import fingerprints
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.command import final_message
from ssldiff_jax.runs.config import run as run_config


@dataclasses.dataclass(frozen=True)
class Later:
    """A function of a module of this package, which is imported when the function is called: every
    command reads the table, and a machine may lack what another stage needs."""

    module: str
    name: str

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return getattr(importlib.import_module(f"{__package__}.{self.module}"), self.name)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _weights(section: str) -> Callable[[run_config.RunConfig], Any]:
    """Facts about the file of weights that a section names."""
    return lambda config: fingerprints.of_path(
        getattr(config, section).weights, f"{section}.weights"
    )


def _encoder(section: str) -> Callable[[run_config.RunConfig], Any]:
    """Likewise of an encoder, which may not be without them where it is a published one."""

    def facts(config: run_config.RunConfig) -> Any:
        getattr(config, section).require_weights()
        return _weights(section)(config)

    return facts


def _networks(config: run_config.RunConfig) -> Any:
    """Facts about the files that an evaluation reads."""
    section = config.evaluate
    of = lambda path: fingerprints.of_path(path, "evaluate.extractors")
    named = {name: of(path) for name, path in section.networks.items()}
    return named | {"reference": fingerprints.of_path(section.reference, "evaluate.reference")}


def _embeddings(config: run_config.RunConfig) -> Any:
    """Facts about embeddings computed elsewhere. Raises ConfigError for tokens that no step makes:
    of squares, for models that are not trained here."""
    if config.embeddings.tokens_of == "squares":
        raise schema.ConfigError(
            "config.embeddings.tokens_of must be patches for the step embeddings, got squares, of "
            "which images are generated alone: --config.stages=generate"
        )
    return config.embeddings.fingerprint()


def _denoiser_weights(config: run_config.RunConfig) -> Any:
    """Facts about the denoiser's file, and about that of a LoRA in it."""
    lora = fingerprints.of_path(config.denoiser.lora.weights, "denoiser.lora.weights")
    own = _weights("denoiser")(config)
    # A run without one keeps what it noted before there were any.
    return own if lora is None else {"denoiser": own, "lora": lora}


def run_plan(context: stage.Context) -> Any:
    """Say what the steps of a run would take."""
    return Later("tools.plan.plan", "run")(context, STAGES)


def _image(config: run_config.RunConfig) -> Any:
    """Facts about the image that is regenerated."""
    # Not at the top: a machine that only computes can open no images.
    from ssldiff_jax.generation import user_images

    return user_images.fingerprint(config.variations.image, "variations.image")


def _labels(config: run_config.RunConfig) -> Any:
    """Facts about the table of labels that a study of slides reads."""
    section = config.study
    reads = "bags" in section.tasks and section.bags.of == "slides"
    return fingerprints.of_path(section.bags.labels, "study.bags.labels") if reads else None


def _compared(config: run_config.RunConfig) -> Any:
    """Facts about the folders that are compared, and what they are compared by."""
    return _networks(config) | Later("tools.compare", "fingerprint")(config)


def _student(config: run_config.RunConfig) -> tuple[str, ...]:
    """What images are made without while no student is asked for: one of another config may lie
    there."""
    return ("distill",) if config.sample.student == "off" else ()


def _unlearnt(config: run_config.RunConfig) -> tuple[str, ...]:
    """What a run has none of that trains no student."""
    return () if config.distill.visits else ("distill",)


# What cuts crops out of slides, and so decides every model that sees some.
_CROPS = ("data.crops", "data.records")
# Of all levels that models learn.
_LEARNT = (*_CROPS, "data.levels")

STAGES: stage.Table = {
    "plan": stage.Stage(
        run_plan,
        ("plan",),
        tool=True,
        always=True,
        leads=True,
        elsewhere=True,
    ),
    "patches": stage.Stage(
        Later("patches", "run"),
        ("data", "embeddings"),
        inputs=Later("patches", "fingerprint"),
        on="all",
    ),
    "encoder": stage.Stage(
        Later("encoder", "run"),
        ("encoder", "embeddings", *_LEARNT),
        ("patches",),
        inputs=_encoder("encoder"),
        on="all",
    ),
    "embeddings": stage.Stage(
        Later("embeddings", "run"),
        # Of the section itself, other keys decide patches and are theirs to check.
        ("embeddings.tokens_per_side", "embeddings.tokens_of", *_LEARNT),
        ("patches", "encoder"),
        inputs=_embeddings,
        on="all",
    ),
    "autoencoder": stage.Stage(
        Later("autoencoder", "run"),
        ("autoencoder", *_LEARNT),
        ("patches", "encoder"),
        inputs=_weights("autoencoder"),
        on="all",
    ),
    "latents": stage.Stage(Later("latents", "run"), _LEARNT, ("patches", "autoencoder"), on="all"),
    "denoiser": stage.Stage(
        Later("denoiser", "run"),
        ("denoiser",),
        ("embeddings", "latents"),
        inputs=_denoiser_weights,
        on="all",
    ),
    "distill": stage.Stage(
        Later("distill", "run"),
        # How the denoiser is sampled that is imitated.
        ("distill", "sample.guidance.interval", "sample.guidance.rescale", "sample.solver.t_start"),
        ("embeddings", "latents", "denoiser"),
        on="all",
    ),
    "sample": stage.Stage(
        Later("sample", "run"),
        ("sample",),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=_student,
        is_dry_run=lambda config: config.sample.dry_run,
        on="all",
        ending=final_message.paths("image_*.png", "image_*.tif"),
    ),
    "judge": stage.Stage(
        Later("encoder", "run_judge"),
        ("judge", *_LEARNT),
        ("patches",),
        inputs=_encoder("judge"),
        on="all",
    ),
    "evaluate": stage.Stage(
        Later("evaluate.evaluate", "run"),
        ("evaluate",),
        ("patches", "sample", "judge"),
        inputs=_networks,
        ending=final_message.paths("results.json"),
        on="all",
    ),
    "grids": stage.Stage(
        Later("grids", "run"),
        ("prior.grids", "prior.conditions", *_CROPS),
        ("patches", "encoder"),
        inputs=lambda config: config.prior.conditions.fingerprint(),
        on="all",
    ),
    "prior": stage.Stage(Later("prior", "run"), ("prior",), ("grids",), on="all"),
    "tokens": stage.Stage(
        Later("tokens", "run"),
        ("tokens", *_CROPS),
        ("patches", "encoder", "embeddings"),
        on="all",
    ),
    "imagine": stage.Stage(
        Later("imagine", "run"),
        ("imagine", "sample", "prior"),
        ("patches", "prior", "denoiser", "autoencoder"),
        # Where a cell has one token it has nothing of the first.
        follows=("tokens", "distill"),
        leaves=_student,
        ending=final_message.paths("image_*.png", "results.json"),
        on="all",
    ),
    # No sections: it shows what the stages noted, and depends on them.
    "report": stage.Stage(
        Later("report", "run"),
        (),
        ("patches", "sample", "evaluate"),
        after=("imagine", "distill"),
        ending=final_message.of_report,
    ),
    "generate": stage.Stage(
        Later("tools.generate", "run"),
        ("sample", "generate", "prior"),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=_student,
        spares=("patches",),
        made_up_by_weights=("denoiser", "autoencoder"),
        after=("denoiser", "autoencoder"),
        inputs=Later("tools.generate", "fingerprint"),
        slug=Later("tools.generate", "slug"),
        ending=Later("tools.generate", "ending"),
        is_dry_run=lambda config: config.sample.dry_run,
        tool=True,
        on="all",
    ),
    "variations": stage.Stage(
        Later("tools.variations", "run"),
        ("sample", "variations"),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=_student,
        spares=("patches",),
        made_up_by_weights=("denoiser", "autoencoder"),
        after=("denoiser", "autoencoder"),
        inputs=_image,
        tool=True,
        always=True,
        ending=final_message.paths("*.png", "*.tif"),
    ),
    "sweep": stage.Stage(
        Later("tools.sweep", "run"),
        ("sample", "sweep"),
        ("patches", "denoiser", "judge"),
        follows=("distill",),
        leaves=_unlearnt,
        tool=True,
        always=True,
        ending=final_message.paths("table.md", "results.json"),
    ),
    # No `always`: it resumes with the checkpoints that it has not seen.
    "watch": stage.Stage(
        Later("tools.watch", "run"),
        ("denoiser", "sample", "evaluate"),
        ("patches", "embeddings", "latents", "judge"),
        inputs=_networks,
        watches=("denoiser",),
        tool=True,
        ending=final_message.paths("results.json"),
        on="all",
    ),
    "compare": stage.Stage(
        Later("tools.compare", "run"),
        ("compare", "evaluate"),
        # Taken where they are: folders can be compared without a run.
        follows=("judge", "encoder"),
        inputs=_compared,
        tool=True,
        always=True,
        ending=final_message.of_compare,
    ),
    "study": stage.Stage(
        Later("tools.study.study", "run"),
        ("sample", "study"),
        ("patches", "denoiser", "autoencoder"),
        follows=("distill",),
        leaves=_student,
        inputs=_labels,
        tool=True,
        always=True,
        ending=final_message.paths("results.json", "curves.json"),
        on="all",
    ),
    "export": stage.Stage(
        Later("tools.export", "run"),
        ("export",),
        ("denoiser", "autoencoder"),
        follows=("prior", "tokens", "distill"),
        leaves=_unlearnt,
        tool=True,
        always=True,
        ending=final_message.paths("*.safetensors"),
    ),
    # Whatever the config says, all that is stored is read.
    "verify": stage.Stage(
        Later("tools.verify", "run"),
        (),
        ("patches",),
        tool=True,
        always=True,
        ending=final_message.of_verify,
    ),
    "compile": stage.Stage(
        Later("tools.compile.compile", "run"),
        ("compile",),
        tool=True,
        always=True,
        elsewhere=True,
        ending=final_message.paths("results.json"),
    ),
    "bench": stage.Stage(
        Later("tools.bench.bench", "run"),
        ("denoiser", "sample", "bench", "data.loader"),
        tool=True,
        always=True,
        elsewhere=True,
        ending=final_message.paths("results.json"),
    ),
}
