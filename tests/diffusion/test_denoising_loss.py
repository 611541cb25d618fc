"""The loss, on denoisers simple enough to know."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.diffusion import conditioning, loss, process, unet

SMALL = unet.UNetConfig(
    latent_channels=2, channels=32, channel_mult=(1,), num_res_blocks=1, attention_levels=(),
    num_heads=2, context_dim=8, conditioning="cross_attention",
)  # fmt: skip
DENOISER = conditioning.DenoiserConfig(SMALL, embedding_dim=6)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Known(conditioning.Denoiser):
    """Predicts `gain` times the embedding's sum everywhere, and keeps what it was asked."""

    gain: float = 0.0
    watch: Callable = lambda *inputs: None

    @nn.compact
    def __call__(self, x_t, t, embedding):
        self.watch(x_t, t, embedding)
        return jnp.zeros_like(x_t) + self.gain * embedding.sum(axis=-1)[:, None, None, None]


SCALING = autoencoder.LatentScaling((2.0, 0.5), (0.1, -0.3))
SCHEDULE = small_configs.section("denoiser.schedule", name="cosine")
STRAIGHT = small_configs.section("denoiser.schedule", name="linear")


def batch_of(size):
    # A log-variance of −30 is none: z is the mean.
    moments = np.concatenate([normal(3, size, 4, 4, 2), np.full((size, 4, 4, 2), -30.0)], axis=-1)
    return {
        "moments": moments.astype(np.float16),
        "embedding": normal(4, size, 6),
        "index": np.arange(size) * 7 + 2,
    }


def task_of(prediction="v", *, drop=0.0, gamma=0.0, gain=0.0, asked=None):
    watch = (lambda *inputs: None) if asked is None else (lambda *inputs: asked.extend(inputs))
    denoiser = Known(DENOISER, gain, watch)
    schedule = STRAIGHT if prediction == "velocity" else SCHEDULE
    noising = process.Process(schedule, prediction)
    return loss.DenoisingTask(denoiser, SCALING, noising, drop, gamma, (4, 4, 4))


def value_of(task, batch, seed=0):
    output = task.loss({}, batch, jax.random.key(seed), ema_params={}, extra={})
    return float(output.loss)


@pytest.mark.parametrize("gamma", [0.0, 5.0])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "velocity"])
def test_loss_is_the_weighted_error(prediction, gamma):
    batch, asked, task = batch_of(8), [], task_of(prediction)
    schedule = task.process.schedule
    found = value_of(task_of(prediction, gamma=gamma, asked=asked), batch)
    x_t, t, embedding = map(np.asarray, asked)
    np.testing.assert_array_equal(embedding, batch["embedding"])
    assert len(np.unique(t)) > 1

    alpha, sigma = (a[t][:, None, None, None] for a in (schedule.alphas, schedule.sigmas))
    z = batch["moments"][..., :2].astype(float)
    x0 = (z - SCALING.latent_shift) * SCALING.latent_scale
    eps = (x_t - alpha * x0) / sigma
    assert abs(eps.std() - 1) < 0.2
    target = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "velocity": eps - x0}[prediction]
    snr = (alpha / sigma) ** 2
    of_x0 = {"eps": 1 / snr, "x0": 1, "v": 1 / (snr + 1), "velocity": sigma**2}[prediction]
    weight = of_x0 * np.minimum(snr, gamma)
    expected = np.mean((weight if gamma else 1.0) * target**2)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_means_stored_alone_are_moments_without_variance(prediction):
    """Stores of a VQ autoencoder's latents have no log-variance; older ones have it, −30."""
    batch, task = batch_of(8), task_of(prediction, gain=0.1)
    alone = batch | {"moments": batch["moments"][..., :2]}
    assert value_of(task, alone) == pytest.approx(value_of(task, batch), rel=1e-5)
    task = dataclasses.replace(task, denoiser=conditioning.Denoiser(DENOISER))
    begin = lambda batch: jax.eval_shape(task.init, jax.random.key(0), batch)[0]
    assert begin(alone) == begin(batch)


@pytest.mark.parametrize("t", [5, 300, 900])
def test_min_snr_weighs_the_error_of_x0_whatever_is_predicted(t):
    """One error of x0, seen through each prediction, has one weighted size."""
    alpha, sigma = SCHEDULE.alphas[t], SCHEDULE.sigmas[t]
    snr = np.array([(alpha / sigma) ** 2])
    # x0_hat − x0 = 1 moves eps_hat by −alpha/sigma and v_hat by −1/sigma.
    errors = {"x0": 1.0, "eps": alpha / sigma, "v": 1 / sigma}
    for name, error in errors.items():
        weighted = loss.min_snr_weight(name, jnp.asarray(snr), 5.0) * error**2
        np.testing.assert_allclose(weighted, np.minimum(snr, 5.0), rtol=1e-3)


def test_dropping_every_condition_hides_the_embedding():
    batch, asked = batch_of(8), []
    other = batch | {"embedding": batch["embedding"] + 1}
    dropped = task_of(drop=1.0, gain=1.0, asked=asked)
    assert value_of(dropped, batch) == value_of(dropped, other)
    np.testing.assert_array_equal(asked[2], 0)
    kept = task_of(drop=0.0, gain=1.0)
    assert value_of(kept, batch) != pytest.approx(value_of(kept, other), rel=1e-3)


def test_conditions_are_dropped_at_their_rate():
    asked = []
    for seed in range(40):
        value_of(task_of(drop=0.3, asked=asked), batch_of(8), seed)
    dropped = np.all(np.stack(asked[2::3]) == 0, axis=-1)
    assert dropped.shape == (40, 8)
    assert dropped.mean() == pytest.approx(0.3, abs=0.08)


def test_the_loss_of_a_batch_is_the_mean_over_its_halves():
    batch, task = batch_of(8), task_of(drop=0.5, gamma=5.0, gain=1.0)
    take = lambda rows: {k: v[rows] for k, v in batch.items()}
    halves = [value_of(task, take(rows)) for rows in (np.s_[:4], np.s_[4:])]
    assert value_of(task, batch) == pytest.approx(np.mean(halves), rel=1e-5)
    renumbered = batch | {"index": np.arange(8)}
    assert value_of(task, renumbered) != pytest.approx(np.mean(halves), rel=1e-3)
