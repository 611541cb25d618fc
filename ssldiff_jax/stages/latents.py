"""Stage `latents`: the moments of every crop, and the affine that makes them unit variance."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import data_parallel, digests, layers
from ssldiff_jax.data import store
from ssldiff_jax.runs import level_crops, shard_writing, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.train import hosts
from ssldiff_jax.weights import diffusers_folder, published

_BATCH = 64


def run(context: stage.Context) -> dict[str, Any] | None:
    """Write an array store of moments, aligned with the embeddings, and their scaling."""
    config, channels = context.config, context.config.autoencoder.model.chosen.latent_channels
    params, reader = context.artifacts.autoencoder_params(), level_crops.reader(context.artifacts)
    # Moments of a few hundred are far outside; half precision keeps three digits of the rest.
    shape = (config.window, config.window, config.autoencoder.model.num_stored)
    field = store.Field("moments", shape, "float16")
    shared = store.SharedStore(context.folder("latents"), (field,), len(reader), store.SHARD_SIZE)
    work = shard_writing.Work(
        reader.with_context, _encoder(config, params), _BATCH, config.data.loader
    )
    # Kept beside each shard, so that a stage that resumes reads none of them again.
    sums = lambda batch: _sums(batch["moments"], channels)
    shard_writing.write(shared, "latents", work, sums)
    if not hosts.is_first():
        return None
    # Without scaling, as the published VQ-f4 has none.
    mean, std = np.zeros(channels), np.ones(channels)
    if config.autoencoder.latent_scaling == "measured":
        mean, std = _mean_and_std(shared.tally())
    elif config.autoencoder.latent_scaling == "published":
        file = published.ModelFile.read(config.autoencoder.weights, "vae")
        scaling = diffusers_folder.scaling(file.path, file.about, config.autoencoder.model)
        mean, std = np.array(scaling.latent_shift), 1 / np.array(scaling.latent_scale)
    facts = {
        "latent_shift": mean.tolist(),
        "latent_scale": (1 / std).tolist(),
        "autoencoder": digests.of_params(params),
    }
    shared.close(**facts)
    return facts


def _encoder(
    config: run_config.RunConfig, params: Any
) -> Callable[[UInt[np.ndarray, "N S S bands"]], Callable[[], store.Batch]]:
    """What begins to encode patches, and returns what waits for their moments; this host's devices
    share a batch."""
    model = autoencoder.Autoencoder(config.autoencoder.model)
    margin, side = config.context, config.window

    def program(params, pixels):
        moments = model.apply({"params": params}, layers.to_image(pixels), method=model.encode)
        # Of a VQ autoencoder the means: its log-variances are one number, −30.
        stored = moments[..., : config.autoencoder.model.num_stored]
        # Encoded with its context, so that no latent knows a border.
        return stored[:, margin : margin + side, margin : margin + side]

    encode = data_parallel.DataParallel(program, data_parallel.local_mesh())
    run = functools.partial(encode.start, params)

    def start(patches: UInt[np.ndarray, "N S S bands"]) -> Callable[[], store.Batch]:
        wait = data_parallel.start_batches(run, (patches,), _BATCH)
        return lambda: {"moments": np.concatenate(wait()).astype(np.float16)}

    return start


def _sums(moments: np.ndarray, channels: int) -> np.ndarray:
    """Count, sum and sum of squares of z ~ N(mean, var), for each channel; without log-variance
    there is no variance."""
    mean, logvar = np.split(moments.astype(np.float64), [channels], axis=-1)
    # E[z²] = mean² + variance, the log-variance kept in the range that the autoencoder samples
    # with.
    square = mean**2 + (np.exp(np.clip(logvar, -30, 20)) if logvar.size else 0)
    count = np.full(channels, mean[..., 0].size)
    return np.stack([count, mean.sum(axis=(0, 1, 2)), square.sum(axis=(0, 1, 2))])


def _mean_and_std(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel, from `_sums`. Their difference is safe here: half precision, in which
    latents are stored, cannot distinguish those whose mean is 2000 deviations or more, and float64
    keeps nine digits of a variance there.

    Raises ValueError for a channel that no scale brings to unit variance.
    """
    mean, square = sums[1:] / sums[0]
    variance = square - mean**2
    wrong = np.flatnonzero(~(np.isfinite(variance) & (variance > 1e-12 * square)))
    if len(wrong):
        raise ValueError(
            "latents must be finite and vary in every channel, got variances "
            f"{variance[wrong].tolist()} in channels {wrong.tolist()}"
        )
    return mean, np.sqrt(variance)
