"""Stage `latents`: the moments of every crop, and the affine that makes them unit variance."""

from typing import Any

import jax
import numpy as np

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import layers
from ssldiff_jax.data import store
from ssldiff_jax.stages import embeddings, parts, runner

_BATCH = 64


def run(context: runner.Context) -> dict[str, Any]:
    """Write an array store of moments, aligned with the embeddings, and their scaling."""
    config = context.config
    params = parts.load_autoencoder_params(context)
    model = autoencoder.Autoencoder(config.autoencoder.model)
    margin = config.data.crops.context_px // config.downsample_factor

    @jax.jit
    def encode(params, image_uint8):
        moments = model.apply({"params": params}, layers.to_image(image_uint8), method=model.encode)
        return moments[:, margin : margin + config.window, margin : margin + config.window]

    channels = config.autoencoder.model.chosen.latent_channels
    shape = (config.window, config.window, 2 * channels)
    # Moments of a few hundred are far outside; half precision keeps three digits of the rest.
    writer = store.StoreWriter(
        context.folder("latents"), (store.Field("moments", shape, "float16"),)
    )
    sums = np.zeros((3, channels))
    for patches in embeddings.cropped(context, "latents"):
        for start in range(0, len(patches), _BATCH):
            batch = patches[start : start + _BATCH]
            padded = np.pad(batch, ((0, _BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
            moments = np.asarray(encode(params, padded))[: len(batch)]
            writer.append(moments=moments)
            sums += _sums(moments)
    mean = sums[1] / sums[0]
    std = np.sqrt(sums[2] / sums[0] - mean**2)
    if config.autoencoder.latent_scaling == "none":
        mean, std = np.zeros(channels), np.ones(channels)
    facts = {
        "latent_shift": mean.tolist(),
        "latent_scale": (1 / std).tolist(),
        "autoencoder": parts.params_digest(params),
    }
    writer.close(**facts)
    return facts


def _sums(moments: np.ndarray) -> np.ndarray:
    """Count, sum and sum of squares of z ~ N(mean, var), for each channel."""
    mean, logvar = np.split(moments.astype(np.float64), 2, axis=-1)
    square = mean**2 + np.exp(np.clip(logvar, -30, 20))
    count = np.full(mean.shape[-1], mean[..., 0].size)
    return np.stack([count, mean.sum(axis=(0, 1, 2)), square.sum(axis=(0, 1, 2))])
