"""Stage `autoencoder`: train the first stage, measure it on held-out records."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.metrics
from jaxtyping import UInt

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.autoencoder import loss as autoencoder_loss
from ssldiff_jax.core import bands, layers, rng
from ssldiff_jax.data import loader, records
from ssldiff_jax.formats import hub
from ssldiff_jax.runs import artifacts, level_crops, stage, training_tasks
from ssldiff_jax.slides import pyramid
from ssldiff_jax.train import looks, loop
from ssldiff_jax.weights import published

_NUM_TESTED = 64
_NUM_SHOWN = 6


def run(context: stage.Context) -> dict[str, Any]:
    """Train on crops, write `reconstructions.png` (real above, reconstructed below)."""
    config, section = context.config, context.config.autoencoder
    task = training_tasks.training_task("autoencoder", config, context.artifacts)
    start = None
    if section.weights:
        file = published.ModelFile.read(section.weights, "vae")
        start = {"autoencoder": published.load_autoencoder(file, section.model)}
    batches = loader.patch_batches(
        *level_crops.training_records(context.artifacts),
        side=config.data.crops.patch_px,
        dihedral=config.data.crops.dihedral,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, "autoencoder/data"),
        config=config.data.loader,
    )
    run_ = training_tasks.training_run(context, "autoencoder")
    see = config.data.reading.multiband.shown_view
    look = _look(context.artifacts.records("test"), task, section.train.compute.dtype, see)
    params = loop.fit(task, batches, section.train, run_, start=start, look=look)
    side = config.data.records.record_px
    # The decoder gives whole latents back.
    side -= side % config.downsample_factor
    real = artifacts.patches_at(context.artifacts.records("test"), _NUM_TESTED, side)
    reconstructed = _reconstructed(section.model, params["autoencoder"], real)
    rows = [np.concatenate(list(see(x[:_NUM_SHOWN])), axis=1) for x in (real, reconstructed)]
    pyramid.write_png(context.folder("autoencoder") / "reconstructions.png", np.concatenate(rows))

    top = config.data.reading.multiband.top

    def measure(metric: Callable[..., float], **options: Any) -> float:
        pairs = zip(real, reconstructed, strict=True)
        return float(np.mean([metric(a, b, **options) for a, b in pairs]))

    return {
        "num_tested": len(real),
        "psnr": measure(skimage.metrics.peak_signal_noise_ratio, data_range=top),
        "ssim": measure(skimage.metrics.structural_similarity, channel_axis=-1, data_range=top),
        **hub.noted(weights=section.weights),
    }


def _look(
    held_out: records.RecordSource,
    task: autoencoder_loss.AutoencoderTask,
    dtype: str,
    see: bands.View,
) -> looks.Look | None:
    """Held-out patches: their loss, and real above reconstructed as `see` shows them; None where
    there are none."""
    side = task.examples["pixels"].shape[1]
    real = artifacts.patches_at(held_out, looks.MOST_EXAMPLES, side)
    if not len(real):
        return None
    batch = {"pixels": real, "index": np.arange(len(real), dtype=np.int32)}
    loss = looks.held_out_loss(task, batch, dtype)
    shown = real[:_NUM_SHOWN]
    reconstruct = jax.jit(functools.partial(_reconstruct, autoencoder.Autoencoder(task.config)))

    def look(params: Any, extra: Any) -> looks.Seen:
        made = np.asarray(reconstruct(params["autoencoder"], shown))
        rows = np.concatenate([np.concatenate(list(see(x)), axis=1) for x in (shown, made)])
        return looks.Seen({"held_out_loss": loss(params, extra)}, {"reconstructions": rows})

    return look


def _reconstruct(model: autoencoder.Autoencoder, params: Any, pixels: Any) -> Any:
    moments = model.apply({"params": params}, layers.to_image(pixels), method=model.encode)
    # The mean, and no sample: a figure without noise.
    mean, _ = jnp.split(moments, 2, axis=-1)
    image = model.apply({"params": params}, mean, method=model.decode)
    return layers.to_pixels(image, pixels.dtype)


def _reconstructed(
    config: autoencoder.AutoencoderConfig, params: Any, real: UInt[np.ndarray, "N s s bands"]
) -> UInt[np.ndarray, "N s s bands"]:
    """Images through the autoencoder, by the means of their latents."""
    reconstruct = jax.jit(functools.partial(_reconstruct, autoencoder.Autoencoder(config)))
    # A figure of the weights, not of the device that measured it.
    with jax.default_matmul_precision("highest"):
        return np.concatenate([np.asarray(reconstruct(params, x[None])) for x in real])
