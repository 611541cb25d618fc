"""The denoiser's training objective on patches it never saw, beside the same on those it did."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, data_parallel, rng
from ssldiff_jax.diffusion import loss as loss_lib
from ssldiff_jax.evaluation.metrics import intervals
from ssldiff_jax.generation import generator, window_networks
from ssldiff_jax.runs import patch_samples

NUM_PATCHES = 256
"""Of a side at most: intervals of means over more are narrower than what training changes."""
NUM_TIMESTEPS = 8
"""Of each patch. The error varies by orders of magnitude over t, so that a patch's timesteps are
spread evenly over all."""
BATCH = 32  # as the smallest trainings have: it fits where they did


def compare(
    model: generator.Generator,
    held_out: patch_samples.Sample,
    training: patch_samples.Sample,
    seed: int,
) -> dict[str, Any]:
    """The mean loss over `held_out` and over `training` patches, with intervals over patches.

    Patches of the same number are given the same timesteps and noise, and their own embeddings:
    where the two means differ, it is for what the denoiser was trained on. Weights are the averaged
    ones, and no embedding is dropped, so that the loss that training logs is a little higher.
    """
    program = _program(model.networks)
    return {
        name: dataclasses.asdict(_mean(_losses(model, program, sample, seed)))
        for name, sample in (("held_out", held_out), ("training", training))
    }


def _mean(losses: Float[np.ndarray, "N"]) -> intervals.Share:
    counts = 0, len(losses)
    if len(losses) < 2:
        return intervals.Share.too_few(counts, f"{len(losses)} patch, 2 needed")
    without = intervals.LeaveOneBlockOut.of_mean(losses)
    return intervals.mean(float(losses.mean()), counts, without)


def _losses(
    model: generator.Generator, program: Callable, sample: patch_samples.Sample, seed: int
) -> Float[np.ndarray, "N"]:
    """The loss of each patch, a mean over its timesteps."""
    networks, side = model.networks, model.config.window
    # Evenly over all slides: patches of one lie side by side.
    chosen = np.linspace(0, len(sample) - 1, min(len(sample), NUM_PATCHES)).astype(int)
    pixels = np.stack([sample.patch(int(i))[1] for i in chosen])
    x0 = np.stack([networks.encode_image(patch, (side, side)) for patch in pixels])
    condition = networks.condition(model.condition_encoder(pixels), model.config.level_number)

    # Every patch with each of its timesteps is an example.
    index, number = (a.ravel() for a in np.indices((len(pixels), NUM_TIMESTEPS)))
    params, key = model.weights.on_devices[0], rng.stream(seed, "evaluate/denoising_loss")
    run = functools.partial(program, params, key)
    examples = x0[index], condition[index], index, number
    losses = np.concatenate(list(data_parallel.map_batches(run, examples, BATCH)))
    return losses.reshape(-1, NUM_TIMESTEPS).mean(axis=1)


# Checkpoints that are evaluated one after the other share their networks, and so the program.
@functools.lru_cache(maxsize=1)
def _program(networks: window_networks.WindowNetworks) -> Callable[..., arrays.PerExample]:
    """(parameters, key, x0, condition, index of the patch, number of the timestep) → losses."""
    section = networks.config.denoiser
    process, num_timesteps = section.process, section.process.schedule.num_timesteps

    def losses(params, key, x0, condition, index, number):
        key_t, key_eps = jax.random.split(key)
        # Each of a patch's K timesteps is uniform, and together they miss no part.
        start = rng.per_example(key_t, index, jax.random.uniform)
        t = ((start + number / NUM_TIMESTEPS) % 1 * num_timesteps).astype(int)
        example = index * NUM_TIMESTEPS + number
        eps = rng.per_example(key_eps, example, jax.random.normal, x0.shape[1:])
        denoise = lambda x_t, t: networks.denoise(params, x_t, t, condition)
        error = loss_lib.squared_error(denoise, x0, eps, t, process)
        return loss_lib.weighted(error, t, process, section.loss.min_snr_gamma)

    return jax.jit(losses)
