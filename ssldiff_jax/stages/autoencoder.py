"""Stage `autoencoder`: train the first stage, measure it on held-out records."""

from typing import Any

import jax
import numpy as np
import skimage.metrics

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.autoencoder import loss as loss_lib
from ssldiff_jax.core import layers
from ssldiff_jax.data import loader
from ssldiff_jax.encoders import vit
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import parts, runner
from ssldiff_jax.train import loop

_NUM_TESTED = 64


def run(context: runner.Context) -> dict[str, Any]:
    """Train on crops, write `reconstructions.png` (real above, reconstructed below)."""
    config, section = context.config, context.config.autoencoder
    features = parts.load_encoder(context)
    model = vit.ViT(features.config)
    task = loss_lib.AutoencoderTask(
        section.model,
        section.loss,
        lambda params, image: model.apply({"params": params}, image, method=model.tokens),
        features.params,
    )
    batches = loader.patch_batches(
        parts.records(context, "train"),
        side=config.data.crops.patch_px,
        dihedral=config.data.crops.dihedral,
        batch_size=section.train.batch_size,
        seed=config.seed + 2,
        config=config.data.loader,
    )
    run_ = parts.training_run(context, "autoencoder")
    return _measure(context, loop.fit(task, batches, section.train, run_))


def _measure(context: runner.Context, params: Any) -> dict[str, Any]:
    model = autoencoder.Autoencoder(context.config.autoencoder.model)

    def reconstruct(params, image_uint8):
        moments = model.apply({"params": params}, layers.to_image(image_uint8), method=model.encode)
        mean, _ = jax.numpy.split(moments, 2, axis=-1)
        return layers.to_uint8(model.apply({"params": params}, mean, method=model.decode))

    side = context.config.data.records.record_px
    side -= side % context.config.downsample_factor
    real = parts.patches_at(context, "test", _NUM_TESTED, side)
    found = np.concatenate([np.asarray(jax.jit(reconstruct)(params, x[None])) for x in real])
    rows = [np.concatenate(list(images[:6]), axis=1) for images in (real, found)]
    pyramid.write_png(context.folder("autoencoder") / "reconstructions.png", np.concatenate(rows))
    measure = lambda f, **kwargs: float(
        np.mean([f(a, b, **kwargs) for a, b in zip(real, found, strict=True)])
    )
    return {
        "num_tested": len(real),
        "psnr": measure(skimage.metrics.peak_signal_noise_ratio),
        "ssim": measure(skimage.metrics.structural_similarity, channel_axis=-1),
    }
