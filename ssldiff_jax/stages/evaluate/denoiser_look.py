"""What is looked at of a denoiser while it trains: its loss on held-out patches, and variations."""

import dataclasses
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ssldiff_jax.core import patch_grid, rng
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.generation import generator, models
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.runs import patch_samples
from ssldiff_jax.stages.evaluate import denoising_loss
from ssldiff_jax.train import looks

_NUM_PATCHES = 16
"""Held-out ones, and as many of training: each at eight timesteps, always the same."""
_NUM_SHOWN = 4
_NUM_VARIATIONS = 3  # of each that is shown


def look(
    artifacts: artifacts_lib.Artifacts, denoiser: conditioning.Denoiser, mesh: Mesh
) -> looks.Look | None:
    """Looks at a denoiser of a run; None where nothing was held out, or no encoder of the run made
    the embeddings.

    Seen are `held_out_loss` and, with the same timesteps and noise, `training_loss`; and rows of a
    real patch with three generated from its embedding, as `config.sample` has it.
    """
    if artifacts.config.embeddings.source or not len(artifacts.patches("test").records):
        return None
    return _DenoiserLook(artifacts, denoiser, mesh)


class _DenoiserLook:
    def __init__(
        self, artifacts: artifacts_lib.Artifacts, denoiser: conditioning.Denoiser, mesh: Mesh
    ):
        self._artifacts, self._denoiser, self._mesh = artifacts, denoiser, mesh
        self._samples: dict[str, patch_samples.Sample] = {}
        self._model: generator.Generator | None = None

    def __call__(self, params: Any, extra: Any) -> looks.Seen:
        model = self._at(params)
        seed = model.config.seed
        losses = denoising_loss.compare(model, self._samples["test"], self._samples["train"], seed)
        scalars = {f"{name}_loss": loss["value"] for name, loss in losses.items()}
        # Too few patches for an interval have no mean either.
        scalars = {name: value for name, value in scalars.items() if value is not None}
        return looks.Seen(scalars, {"variations": self._variations(model)})

    def _at(self, params: Any) -> generator.Generator:
        """The generator with these weights; programs are traced once."""
        if self._model is not None:
            return self._model.with_params(params)
        made, config = self._artifacts, self._artifacts.config
        self._samples = {
            split: patch_samples.Sample.at_most(made.patches(split), _NUM_PATCHES)
            for split in ("test", "train")
        }
        # Its student is made later.
        config = dataclasses.replace(
            config, sample=dataclasses.replace(config.sample, student="off")
        )
        trained = models.Models(made.encoder(), made.autoencoder(), self._denoiser, params)
        self._model = generator.Generator(config, trained, self._mesh)
        return self._model

    def _variations(self, model: generator.Generator) -> np.ndarray:
        sample = self._samples["test"]
        # From all over: neighbours in it are of one slide.
        chosen = np.linspace(0, len(sample) - 1, min(_NUM_SHOWN, len(sample))).astype(int)
        real = np.stack([sample.patch(int(i))[1] for i in chosen])
        embedding = np.repeat(model.condition_encoder(real), _NUM_VARIATIONS, axis=0)
        seed = rng.seed_of(model.config.seed, "denoiser/look")
        made = model.sample_patches(embedding, seed=seed)
        made = made.reshape(len(chosen), _NUM_VARIATIONS, *real.shape[1:])
        rows = np.concatenate([real[:, None], made], axis=1)
        rows = model.config.data.reading.multiband.shown_view(rows)
        return patch_grid.mosaic(rows.reshape(-1, *rows.shape[2:]), 1 + _NUM_VARIATIONS)
