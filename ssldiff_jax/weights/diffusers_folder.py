"""Folders as diffusers saves a pipeline or a part of one: weights and what is said of them. Code
that lies in them is never run."""

import functools
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.formats.torch_zip import WeightsError

_LOG = logging.getLogger(__name__)

# Of SD3's autoencoder, the one of 16 channels.
_SD3 = autoencoder.LatentScaling((1.5305,) * 16, (0.0609,) * 16)

_PIPELINE = "model_index.json"
_CONFIG = "config.json"


def is_pipeline(path: pathlib.Path) -> bool:
    """Whether a folder holds the parts of a pipeline and no weights itself."""
    return (path / _PIPELINE).is_file() or (path / "transformer" / _CONFIG).is_file()


def part(path: pathlib.Path, name: str) -> pathlib.Path:
    """Where the part `name` of a pipeline lies; for what is no pipeline, `path` itself.

    Raises WeightsError for a pipeline without it.
    """
    inside = path / name
    if inside.is_dir():
        return inside
    if is_pipeline(path):
        raise WeightsError(f"{path}: expected a folder {name} in it, got none")
    return path


def config(path: pathlib.Path, name: str = _CONFIG) -> Mapping[str, Any]:
    """What a folder's config.json, or another file `name`, says; nothing where there is none.

    Raises WeightsError for a file that is no JSON object.
    """
    file = path / name
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text())
    except ValueError as error:
        raise WeightsError(f"{file}: expected JSON, got {error!s:.200}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{file}: expected a JSON object, got {type(values).__name__}")
    return values


@functools.cache
def say_code(path: pathlib.Path) -> None:
    """Warn of Python files in a folder: they are left alone, whatever asks for them."""
    if not path.is_dir():
        return
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*.py"))
    if found:
        _LOG.warning("%s has code that is not run: %s", path, ", ".join(found))


def scaling(
    path: str, about: Mapping[str, Any], config: autoencoder.AutoencoderConfig
) -> autoencoder.LatentScaling:
    """How latents of a published autoencoder are scaled: as its config.json says, or, without one,
    as those of SD3.

    Raises WeightsError for a file that says nothing and has not SD3's 16 channels.
    """
    channels, scale = config.chosen.latent_channels, about.get("scaling_factor")
    if scale is None:
        is_sd3 = config.kind == "kl" and (channels, config.conv.latent_conv) == (16, "none")
        if is_sd3 and not about:
            return _SD3
        raise WeightsError(
            f"{path}: expected a config.json with scaling_factor, or SD3's autoencoder of 16 "
            f"channels, for config.autoencoder.latent_scaling=published, got {channels} channels"
        )
    shift = about.get("shift_factor") or 0.0
    return autoencoder.LatentScaling((float(scale),) * channels, (float(shift),) * channels)
