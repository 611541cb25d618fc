"""Stage `autoencoder`: train the first stage, measure it on held-out records."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.metrics

from ssldiff_jax.autoencoder import autoencoder, lpips
from ssldiff_jax.autoencoder import loss as loss_lib
from ssldiff_jax.core import layers
from ssldiff_jax.data import loader
from ssldiff_jax.runs import artifacts, stage
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import loop
from ssldiff_jax.weights import published

_NUM_TESTED = 64


def run(context: stage.Context) -> dict[str, Any]:
    """Train on crops, write `reconstructions.png` (real above, reconstructed below)."""
    config, section = context.config, context.config.autoencoder
    task = loss_lib.AutoencoderTask(section.model, section.loss, *_perceptual(context))
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights)
        start = {"autoencoder": published.load_autoencoder(file, section.model)}
    batches = loader.patch_batches(
        artifacts.records(context, "train"),
        side=config.data.crops.patch_px,
        dihedral=config.data.crops.dihedral,
        batch_size=section.train.batch_size,
        seed=config.seed + 2,
        config=config.data.loader,
    )
    run_ = artifacts.training_run(context, "autoencoder")
    params = loop.fit(task, batches, section.train, run_, start=start)
    return _measure(context, params["autoencoder"])


def _perceptual(context: stage.Context) -> tuple[Callable[..., jax.Array], Any]:
    """The distance (params, x, y) that the config names, and its fixed parameters."""
    section = context.config.autoencoder
    if not section.train.num_steps or not section.loss.perceptual_weight:
        return (lambda params, x, y: jnp.zeros(())), {}
    if section.loss.perceptual == "lpips":
        model = lpips.LPIPS()
        distance = lambda params, x, y: model.apply({"params": params}, x, y).mean()
        return distance, published.load_lpips(section.loss.lpips_weights)
    features = artifacts.load_encoder(context)
    tokens = features.architecture.tokens
    distance = lambda params, x, y: loss_lib.feature_distance(functools.partial(tokens, params))(
        x, y
    )
    return distance, features.params


def _measure(context: stage.Context, params: Any) -> dict[str, Any]:
    model = autoencoder.Autoencoder(context.config.autoencoder.model)

    def reconstruct(params, image_uint8):
        moments = model.apply({"params": params}, layers.to_image(image_uint8), method=model.encode)
        mean, _ = jnp.split(moments, 2, axis=-1)
        return layers.to_uint8(model.apply({"params": params}, mean, method=model.decode))

    side = context.config.data.records.record_px
    side -= side % context.config.downsample_factor
    real = artifacts.patches_at(context, "test", _NUM_TESTED, side)
    # A figure of the weights, not of the device that measured it.
    with jax.default_matmul_precision("highest"):
        reconstructed = np.concatenate(
            [np.asarray(jax.jit(reconstruct)(params, x[None])) for x in real]
        )
    rows = [np.concatenate(list(images[:6]), axis=1) for images in (real, reconstructed)]
    pyramid.write_png(context.folder("autoencoder") / "reconstructions.png", np.concatenate(rows))
    measure = lambda f, **kwargs: float(
        np.mean([f(a, b, **kwargs) for a, b in zip(real, reconstructed, strict=True)])
    )
    return {
        "num_tested": len(real),
        "psnr": measure(skimage.metrics.peak_signal_noise_ratio),
        "ssim": measure(skimage.metrics.structural_similarity, channel_axis=-1),
    }
