"""What stages read beside the config and each other: facts about files, which decide whether a
result is of what is asked for; and what of a run they leave aside."""

from collections.abc import Callable
from typing import Any

from ssldiff_jax.core import schema
from ssldiff_jax.formats import fingerprints
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import later


def weights(section: str) -> Callable[[run_config.RunConfig], Any]:
    """Facts about the file of weights that a section names."""
    return lambda config: fingerprints.of_path(
        getattr(config, section).weights, f"{section}.weights"
    )


def encoder(section: str) -> Callable[[run_config.RunConfig], Any]:
    """Likewise of an encoder, which may not be without them where it is a published one."""

    def facts(config: run_config.RunConfig) -> Any:
        getattr(config, section).require_weights()
        return weights(section)(config)

    return facts


def networks(config: run_config.RunConfig) -> Any:
    """Facts about the files that an evaluation reads."""
    section = config.evaluate
    of = lambda path: fingerprints.of_path(path, "evaluate.extractors")
    named = {name: of(path) for name, path in section.networks.items()}
    return named | {"reference": fingerprints.of_path(section.reference, "evaluate.reference")}


def embeddings(config: run_config.RunConfig) -> Any:
    """Facts about embeddings computed elsewhere. Raises ConfigError for tokens that no step makes:
    of squares, for models that are not trained here."""
    if config.embeddings.tokens_of == "squares":
        raise schema.ConfigError(
            "config.embeddings.tokens_of must be patches for the step embeddings, got squares, of "
            "which images are generated alone: --config.stages=generate"
        )
    return config.embeddings.fingerprint()


def denoiser(config: run_config.RunConfig) -> Any:
    """Facts about the denoiser's file, and about that of a LoRA in it."""
    lora = fingerprints.of_path(config.denoiser.lora.weights, "denoiser.lora.weights")
    own = weights("denoiser")(config)
    # A run without one keeps what it noted before there were any.
    return own if lora is None else {"denoiser": own, "lora": lora}


def image(config: run_config.RunConfig) -> Any:
    """Facts about the image that is regenerated."""
    # Not at the top: a machine that only computes can open no images.
    from ssldiff_jax.generation import user_images

    return user_images.fingerprint(config.variations.image, "variations.image")


def labels(config: run_config.RunConfig) -> Any:
    """Facts about the table of labels that a study of slides reads."""
    section = config.study
    reads = "bags" in section.tasks and section.bags.of == "slides"
    return fingerprints.of_path(section.bags.labels, "study.bags.labels") if reads else None


def compared(config: run_config.RunConfig) -> Any:
    """Facts about the folders that are compared, and what they are compared by."""
    return networks(config) | later.Later("tools.compare", "fingerprint")(config)


def without_student(config: run_config.RunConfig) -> tuple[str, ...]:
    """What images are made without while no student is asked for: one of another config may lie
    there."""
    return ("distill",) if config.sample.student == "off" else ()


def unlearnt(config: run_config.RunConfig) -> tuple[str, ...]:
    """What a run has none of that trains no student."""
    return () if config.distill.visits else ("distill",)
