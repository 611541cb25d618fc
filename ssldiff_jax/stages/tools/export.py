"""Tool `export`: a run's models as safetensors under the names they are published with, in a folder
that can be published as it is."""

import dataclasses
import logging
import pathlib
from typing import Any

from ssldiff_jax.core import digests
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import exported, model_card, models
from ssldiff_jax.report import figures, metrics
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders as folders_lib

_LOG = logging.getLogger(__name__)


def run(context: stage.Context) -> dict[str, Any]:
    """Write `denoiser.safetensors` (UNet, conditioner and first stage in one, as checkpoints of
    learned representation-guided diffusion have them), `encoder.safetensors` (timm's names) and,
    where they are trained, `prior.safetensors` and `tokens.safetensors` (names of our own); beside
    them `config.json` and the card, `README.md`.

    `Generator.load` takes the folder, or the denoiser's file, without a config: the head of every
    file has it, with the scale, the encoder and the licence. Beside published names the files hold
    what is ours: `latent_scale` and `latent_shift`, the encoder's `origin`, and the light
    autoencoder, which has no published names. A published encoder that was used as it is, and a
    prior's text encoder, stay where they are: on the Hub they are found by their address, and laid
    into the folder under their old names too.
    """
    trained = models.Models.of_run(context.artifacts)
    folders, made = context.folders, context.artifacts.of_models.folders
    # Of the code that trained it, not of this command's.
    versions = atomic.read_json(context.folder("denoiser") / "done.json")["versions"]
    card = exported.Card.of(_pinned(context.config, folders), trained, versions)
    folder = context.folder("export")
    written = exported.write(folder, trained, card)
    collected, why_not = measured(folders)
    name = context.workdir.resolve().name
    about = model_card.About(name, _training_data(made.of_stage("patches")), collected, why_not)
    written += model_card.write(folder, card, about, written)
    return {"files": [path.name for path in written]}


def _pinned(config: run_config.RunConfig, folders: folders_lib.Folders) -> run_config.RunConfig:
    """Addresses on the Hub by the commits that the stages read."""

    def noted(name: str, key: str) -> str | None:
        path = folders.of_stage(name) / "done.json"
        return (atomic.read_json(path)["facts"] or {}).get(key) if path.exists() else None

    for name in ("encoder", "autoencoder", "denoiser"):
        if address := noted(name, "weights"):
            section = dataclasses.replace(getattr(config, name), weights=address)
            config = dataclasses.replace(config, **{name: section})
    if address := noted("grids", "text_encoder"):
        conditions = dataclasses.replace(config.prior.conditions, text_encoder=address)
        prior = dataclasses.replace(config.prior, conditions=conditions)
        config = dataclasses.replace(config, prior=prior)
    return config


def _training_data(patches: pathlib.Path) -> model_card.TrainingData:
    """Of what the stage `patches` cut."""
    inputs = atomic.read_json(patches / "stage.json")["config"]["inputs"]
    facts = atomic.read_json(patches / "done.json")["facts"]
    return model_card.TrainingData(
        digests.of_values(inputs), len(facts["slides"]), facts["records"]
    )


def measured(folders: folders_lib.Folders) -> tuple[dict[str, Any] | None, str]:
    """The figures of the run, or why there are none that are of these models."""
    if not folders.is_done("evaluate"):
        return None, "the step evaluate was not run"
    if not _is_current(folders, "evaluate"):
        why = "what the step evaluate measured was made again since"
        _LOG.warning("the card has no figures: %s; --config.stages=sample,evaluate", why)
        return None, why
    try:
        return figures.collect(metrics.collect(folders.workdir)), ""
    except ValueError as error:
        _LOG.warning("the card has no figures: %s", error)
        return None, "what the step evaluate left is of an earlier form"


def _is_current(folders: folders_lib.Folders, name: str) -> bool:
    """Whether all that a stage read is still what it read."""
    noted = atomic.read_json(folders.of_stage(name) / "stage.json")
    return all(
        folders.is_done(need)
        and atomic.read_json(folders.of_stage(need) / "done.json")["digest"] == digest
        and (folders.borrows(need) or _is_current(folders, need))
        for need, digest in noted["upstream"].items()
    )
