"""Part of the tool `bench`: the autoencoder's decoder, tile by tile."""

from collections.abc import Iterator

import jax
import numpy as np

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.bench import random_weights, results, timing
from ssldiff_jax.weights import published

_TIMES = (1, 4)  # as many tiles as the sampler decodes at once, and more


def rows(config: run_config.RunConfig) -> Iterator[results.Figure]:
    """Tiles a second on one device, as large as the sampler's, and the decoder's FLOPs."""
    model, tiles, clock = config.autoencoder.model, config.sample.decode, timing.CompilerClock()
    channels = model.chosen.latent_channels
    params = random_weights.params(published.abstract_autoencoder(model))
    scaling = autoencoder.LatentScaling((1.0,) * channels, (0.0,) * channels)
    trained = autoencoder.TrainedAutoencoder(model, params, scaling)
    here, decode = jax.local_devices()[0], jax.jit(trained.decode)
    params = jax.device_put(params, here)
    for times in _TIMES:
        count = times * tiles.chunk
        shape, label = (count, tiles.tile, tiles.tile, channels), f"decode/{count}_tiles"
        noise = np.random.default_rng(0).standard_normal(shape, np.float32)
        latents = jax.device_put(noise, here)
        lowered = decode.lower(params, latents)
        compiled, compiling = clock.compiled(lowered, label)
        yield compiling
        call = lambda run=compiled, z=latents: jax.block_until_ready(run(params, z))
        seconds = timing.seconds(call)
        yield f"{label}/rate", [count / s for s in seconds], "tiles/s"
        flops = (lowered.cost_analysis() or {}).get("flops")
        if flops:
            yield f"{label}/model_flops", [flops / count], "FLOP/tile"
            yield from timing.mfu_figure(label, [flops / s for s in seconds])
