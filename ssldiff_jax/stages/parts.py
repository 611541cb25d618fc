"""Trained parts and their data, read back from a work directory."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np
from PIL import Image

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import arrays, files
from ssldiff_jax.data import builder, crops
from ssldiff_jax.diffusion import conditioning
from ssldiff_jax.encoders import encoder
from ssldiff_jax.stages import config as run_config
from ssldiff_jax.stages import runner
from ssldiff_jax.train import checkpoint, loop


def training_run(context: runner.Context, name: str) -> loop.Run:
    """The Run of a stage that trains."""
    config = context.config
    return loop.Run(name, context.folder(name), context.mesh, config.mesh.rules, config.seed)


def records(context: runner.Context, split: str) -> builder.RecordSource:
    """Records of a split."""
    return builder.RecordSource(context.folder("patches") / "records", split)


def crop_table(config: run_config.RunConfig, source: builder.RecordSource) -> crops.CropTable:
    """The crops that embeddings and latents are cached for."""
    return crops.CropTable(
        len(source), config.data.records.record_px, config.data.crops, config.seed
    )


def patches_at(
    context: runner.Context, split: str, count: int, side: int, shift: int = 0
) -> np.ndarray:
    """Squares of `side` px at (shift, shift) of `count` records, in a fixed random order."""
    source = records(context, split)
    order = np.random.default_rng(0).permutation(len(source))[:count]
    at = np.s_[shift : shift + side, shift : shift + side]
    return np.stack([source[int(i)][at] for i in order])


def regions(context: runner.Context) -> list[arrays.ImageUint8]:
    """The held-out reference regions."""
    folder = context.folder("patches")
    count = len(files.read_json(folder / "regions.json"))
    return [np.asarray(Image.open(folder / f"region_{i}.png")) for i in range(count)]


def load_encoder(context: runner.Context, name: str = "encoder") -> encoder.Encoder:
    """The encoder (or the judge) with its averaged weights and measured origin."""
    params = checkpoint.load_params(context.folder(name) / "checkpoints")["encoder"]
    origin = files.read_json(context.folder(name) / "encoder.json")["origin"]
    return encoder.Encoder(getattr(context.config, name).architecture, params, origin)


def encoder_digest(model: encoder.Encoder) -> str:
    """A 12-digit hash of all that decides an encoder's embeddings."""
    return params_digest({"params": model.params, "origin": model.origin})


def params_digest(params: Any) -> str:
    """A 12-digit hash of weights, by name and value."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:12]


def load_autoencoder_params(context: runner.Context) -> Any:
    """The autoencoder's averaged weights."""
    return checkpoint.load_params(context.folder("autoencoder") / "checkpoints")["autoencoder"]


def load_autoencoder(context: runner.Context) -> autoencoder.TrainedAutoencoder:
    """The autoencoder with its averaged weights and measured scaling."""
    params = load_autoencoder_params(context)
    scaling = load_scaling(context.folder("latents"))
    return autoencoder.TrainedAutoencoder(context.config.autoencoder.model, params, scaling)


def load_scaling(folder: pathlib.Path) -> autoencoder.LatentScaling:
    """Latent scale and shift, as the latents stage measured them."""
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    return autoencoder.LatentScaling(tuple(facts["latent_scale"]), tuple(facts["latent_shift"]))


def load_denoiser(context: runner.Context) -> tuple[conditioning.Denoiser, Any]:
    """The denoiser and its averaged weights."""
    dim = context.config.encoder.architecture.vit.width
    model = conditioning.Denoiser(context.config.denoiser.model(dim))
    return model, checkpoint.load_params(context.folder("denoiser") / "checkpoints")
