"""Models that a config takes from files as they are, without a step of the run."""

from typing import Any

from ssldiff_jax.formats import fingerprints
from ssldiff_jax.runs.config import run as run_config


def files(config: run_config.RunConfig) -> dict[str, Any]:
    """Facts about all that decides such models: files, and how much of adapters is taken; nothing
    where the denoiser is the run's own.

    Raises WeightsError for a file that is not there.
    """
    section = config.denoiser
    if not section.is_published:
        return {}
    named = {
        "denoiser.weights": section.weights,
        "denoiser.lora.weights": section.lora.weights,
        "denoiser.control.weights": section.control.weights,
        "autoencoder.weights": config.autoencoder.weights,
        "encoder.weights": config.encoder.weights,
    }
    facts = {key: fingerprints.of_path(path, key) for key, path in named.items() if path}
    return facts | {
        "encoder.name": config.encoder.name,
        "denoiser.lora.scale": section.lora.scale,
        "denoiser.control.scale": section.control.scale,
    }
