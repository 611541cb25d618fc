"""The denoiser's loss on held-out and on training patches."""

import dataclasses

import jax
import numpy as np
import pytest

from ssldiff_jax.core import rng, schema
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import artifacts, patch_samples
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders, stored_config
from ssldiff_jax.stages.evaluate import denoising_loss

SEED, TIMES = 3, denoising_loss.NUM_TIMESTEPS


@pytest.fixture(scope="module")
def sample(workdir):
    config = schema.build(run_config.RunConfig, stored_config.of_run(workdir))
    made = artifacts.Artifacts(config, folders.Folders.of(config, workdir))
    return patch_samples.Sample.choose(made.patches("test"), 5)


def losses(generator, sample):
    program = denoising_loss._program(generator.networks)
    return denoising_loss._losses(generator, program, sample, SEED)


def by_hand(generator, patch, index):
    """Σ_k w(t_k)·|v̂ − v|² / K, the sums written out in float64."""
    config, networks = generator.config, generator.networks
    schedule, side = config.denoiser.schedule, config.window
    x0 = np.asarray(networks.encode_image(patch, (side, side)), np.float64)
    embedding = networks.single_cell(generator.encoder(patch[None]))
    key_t, key_eps = jax.random.split(rng.stream(SEED, "evaluate/denoising_loss"))
    start = float(jax.random.uniform(jax.random.fold_in(key_t, index)))
    total, seen = 0.0, []
    for k in range(TIMES):
        t = int((start + k / TIMES) % 1 * schedule.num_timesteps)
        noise_key = jax.random.fold_in(key_eps, index * TIMES + k)
        eps = np.asarray(jax.random.normal(noise_key, x0.shape), np.float64)
        alpha, sigma = (float(a.ravel()[0]) for a in schedule.at(np.array([t]), 1))
        x_t = (alpha * x0 + sigma * eps).astype(np.float32)[None]
        params = generator.weights.on_devices[0]
        prediction_hat = networks.denoise(params, x_t, np.array([t]), embedding)
        target = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}
        error = np.mean(
            (np.asarray(prediction_hat)[0] - target[config.denoiser.loss.prediction]) ** 2
        )
        snr, gamma = (alpha / sigma) ** 2, config.denoiser.loss.min_snr_gamma
        weight = {"eps": 1 / snr, "x0": 1.0, "v": 1 / (snr + 1)}[config.denoiser.loss.prediction]
        total += error * (min(snr, gamma) * weight if gamma else 1.0)
        seen.append(t * TIMES // schedule.num_timesteps)
    return total / TIMES, sorted(seen)


def test_losses_are_the_objective_at_timesteps_spread_over_all(generator, sample):
    found = losses(generator, sample)
    for i in (0, 3):
        expected, eighths = by_hand(generator, sample.patch(i)[1], i)
        np.testing.assert_allclose(found[i], expected, rtol=2e-4)
        assert eighths == list(range(TIMES))


def test_a_patch_has_the_same_loss_however_many_there_are(generator, sample):
    fewer = dataclasses.replace(sample, places=sample.places[:1])
    np.testing.assert_allclose(losses(generator, fewer)[0], losses(generator, sample)[0], rtol=1e-5)


def test_training_lowers_the_loss_and_random_weights_do_not(generator, sample):
    """A network that predicts nothing of use has at least the variance of its target as its
    error."""
    noise = lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32)
    random = generator.with_params(jax.tree.map(noise, generator.trained.params))
    assert losses(generator, sample).mean() < losses(random, sample).mean()


def test_results_hold_both_sides_with_their_counts(workdir):
    found = atomic.read_json(workdir / "evaluate" / "results.json")["denoising_loss"]
    assert set(found) == {"held_out", "training"}
    for side in found.values():
        assert side["counts"] == [0, 12]
        assert side["low"] <= side["value"] <= side["high"]
        assert side["value"] > 0


def test_the_same_patches_have_the_same_loss_on_both_sides(generator, sample):
    both = denoising_loss.compare(generator, sample, sample, SEED)
    assert both["held_out"] == both["training"]
