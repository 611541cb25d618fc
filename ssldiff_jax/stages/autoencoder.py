"""Stage `autoencoder`: train the first stage, measure it on held-out records."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.metrics
from jaxtyping import UInt8

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.core import layers, rng
from ssldiff_jax.data import loader
from ssldiff_jax.runs import artifacts, stage, training_tasks
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import loop
from ssldiff_jax.weights import published

_NUM_TESTED = 64


def run(context: stage.Context) -> dict[str, Any]:
    """Train on crops, write `reconstructions.png` (real above, reconstructed below)."""
    config, section = context.config, context.config.autoencoder
    task = training_tasks.training_task("autoencoder", config, context.artifacts)
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights, "vae")
        start = {"autoencoder": published.load_autoencoder(file, section.model)}
    batches = loader.patch_batches(
        context.artifacts.records("train"),
        side=config.data.crops.patch_px,
        dihedral=config.data.crops.dihedral,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, "autoencoder/data"),
        config=config.data.loader,
    )
    run_ = training_tasks.training_run(context, "autoencoder")
    params = loop.fit(task, batches, section.train, run_, start=start)
    side = config.data.records.record_px
    # The decoder gives whole latents back.
    side -= side % config.downsample_factor
    real = artifacts.patches_at(context.artifacts.records("test"), _NUM_TESTED, side)
    reconstructed = _reconstructed(section.model, params["autoencoder"], real)
    rows = [np.concatenate(list(images[:6]), axis=1) for images in (real, reconstructed)]
    pyramid.write_png(context.folder("autoencoder") / "reconstructions.png", np.concatenate(rows))

    def measure(metric: Callable[..., float], **options: Any) -> float:
        pairs = zip(real, reconstructed, strict=True)
        return float(np.mean([metric(a, b, **options) for a, b in pairs]))

    return {
        "num_tested": len(real),
        "psnr": measure(skimage.metrics.peak_signal_noise_ratio),
        "ssim": measure(skimage.metrics.structural_similarity, channel_axis=-1),
    }


def _reconstructed(
    config: autoencoder.AutoencoderConfig, params: Any, real: UInt8[np.ndarray, "N s s 3"]
) -> UInt8[np.ndarray, "N s s 3"]:
    """Images through the autoencoder, by the means of their latents."""
    model = autoencoder.Autoencoder(config)

    def reconstruct(params, image_uint8):
        moments = model.apply({"params": params}, layers.to_image(image_uint8), method=model.encode)
        # The mean, and no sample: a figure without noise.
        mean, _ = jnp.split(moments, 2, axis=-1)
        return layers.to_uint8(model.apply({"params": params}, mean, method=model.decode))

    # A figure of the weights, not of the device that measured it.
    with jax.default_matmul_precision("highest"):
        return np.concatenate([np.asarray(jax.jit(reconstruct)(params, x[None])) for x in real])
