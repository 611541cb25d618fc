"""Tokens sampled from embeddings: of a linear Gaussian, whose conditional mean and deviation are
known, learnt by a small network."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
import small_configs

from ssldiff_jax.data import store
from ssldiff_jax.generation import grid_network, token_sampler
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.prior import whitening
from ssldiff_jax.train import step as step_lib

DIM, DEVIATION = 2, 0.5


def pattern(per_side):
    """What each token has beside the embedding: no turn or mirror leaves it as it is."""
    numbers = np.arange(per_side**2 * DIM).reshape(per_side, per_side, DIM)
    values = np.sin(1.7 * numbers + 0.3 * numbers**2)
    return (values - values.mean(axis=(0, 1))).astype(np.float32)


def plain():
    eye, zero = np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32)
    return whitening.Whitening(zero, eye, eye)


@functools.cache
def trained(per_side):
    """token = embedding + pattern + noise."""
    network = {"width": 32, "depth": 2, "num_heads": 2}
    section = small_configs.section("tokens", network=network)
    white = tokens_lib.WhiteTokens(plain(), plain())
    task, source = section.task(per_side, DIM, 1, white), np.random.default_rng(0)

    def batch(number, count=64):
        whole = source.normal(size=(count, DIM)).astype(np.float32)
        noise = DEVIATION * source.normal(size=(count, per_side, per_side, DIM))
        tokens = whole[:, None, None] + pattern(per_side) + noise
        packed = tokens.reshape(count, -1).astype(np.float16)
        return {"embedding": packed, "whole": whole, "index": np.arange(count) + count * number}

    key, tx = jax.random.key(0), optax.adam(optax.cosine_decay_schedule(5e-3, 400))
    state = step_lib.init_state(task, tx, key, batch(0))
    update = step_lib.Update(task, tx, 0.98)
    step = jax.jit(lambda s, b: step_lib.train_step(s, b, key, update=update))
    for number in range(400):
        state, _ = step(state, batch(number))
    return token_sampler.TokenSampler(section, per_side, "", white, state.ema_params)


@pytest.mark.parametrize("per_side", [2, 4])
def test_tokens_have_the_mean_and_the_deviation_that_the_embedding_leaves(per_side):
    model = trained(per_side)
    for whole in ([1.0, -0.5], [-1.2, 0.8]):
        embedding = np.tile(np.array(whole, np.float32), (192, 1))
        batches = range(grid_network.num_batches(len(embedding)))
        tokens = np.concatenate([model.sample_part(embedding, i, seed=1) for i in batches])
        assert tokens.shape == (192, per_side, per_side, DIM)
        expected = np.array(whole) + pattern(per_side)
        # In its place: no other order of the pattern is as near.
        np.testing.assert_allclose(tokens.mean(axis=0), expected, atol=0.3)
        np.testing.assert_allclose(tokens.mean(axis=(0, 1, 2)), whole, atol=0.12)
        assert 0.8 * DEVIATION < tokens.std(axis=0).mean() < 1.2 * DEVIATION
        # Noise of one token says nothing of that beside it.
        noise = tokens - tokens.mean(axis=0)
        beside = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / (noise**2).mean()
        assert abs(beside) < 0.15


@pytest.mark.parametrize("per_side", [2, 4])
def test_a_cell_alone_keeps_its_tokens_in_order(per_side):
    """Packed row by row, as the denoiser takes them."""
    model, whole = trained(per_side), np.array([0.5, 0.5], np.float32)
    cells = [model.sample(whole[None, None], seed=seed) for seed in range(12)]
    assert cells[0].shape == (1, 1, per_side**2 * DIM)
    tokens = np.stack(cells).reshape(12, per_side, per_side, DIM)
    np.testing.assert_allclose(tokens.mean(axis=0), whole + pattern(per_side), atol=0.6)
    mean = tokens.mean(axis=0)
    orders = [np.rot90(pattern(per_side), turns) for turns in range(4)]
    orders += [order.swapaxes(0, 1) for order in orders]
    errors = [np.mean((mean - whole - order) ** 2) for order in orders]
    assert np.argmin(errors) == 0


@pytest.mark.parametrize("per_side", [2, 4])
def test_every_cell_of_a_grid_has_tokens_of_its_own_embedding(per_side):
    """In their order, whatever lies beside it."""
    model, angle = trained(per_side), 2 * np.arange(6).reshape(2, 3)
    grid = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)
    sampled = [model.sample(grid, seed=seed) for seed in range(6)]
    assert sampled[0].shape == (2, 3, per_side**2 * DIM)
    assert np.abs(sampled[0] - sampled[1]).max() > 0.1
    np.testing.assert_array_equal(model.sample(grid, seed=0), sampled[0])
    mean = np.mean(sampled, axis=0).reshape(2, 3, per_side, per_side, DIM)
    np.testing.assert_allclose(mean.mean(axis=(2, 3)), grid, atol=0.4)
    beside = (mean - grid[:, :, None, None]).mean(axis=(0, 1))
    np.testing.assert_allclose(beside, pattern(per_side), atol=0.4)


@pytest.mark.parametrize("border", ["margin", "wrap"])
def test_windows_that_move_are_conditioned_on_what_lies_between_cells(border):
    """On a ring whose embeddings turn slowly, tokens turn with them across the borders of cells."""
    still = trained(2)
    section = dataclasses.replace(still.section, max_offset=1)
    model, angle = dataclasses.replace(still, section=section), np.arange(12) * 2 * np.pi / 12
    grid = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)[None]
    sampled = np.stack([model.sample(grid, seed=seed, border=border) for seed in range(4)])
    mean = sampled.reshape(4, 12, 4, DIM).mean(axis=(0, 2))
    cosines = np.sum(mean * grid[0], axis=-1) / np.linalg.norm(mean, axis=-1) / 2
    assert cosines.min() > 0.8
    alone = np.stack([still.sample(grid, seed=seed, border=border) for seed in range(4)])
    assert np.abs(sampled - alone).mean() > 0.1


def test_batches_do_not_depend_on_how_many_there_are():
    model = trained(2)
    embedding = np.random.default_rng(0).normal(size=(40, DIM)).astype(np.float32)
    whole = model.sample_part(embedding, 0, seed=3)
    np.testing.assert_array_equal(model.sample_part(embedding[:32], 0, seed=3), whole)
    assert model.sample_part(embedding, 1, seed=3).shape == (8, 2, 2, DIM)


def test_without_guidance_the_network_is_asked_once():
    sampler = trained(2)._network.canvas_sampler(tokens_lib.spec(DIM))
    plan = grid_network.plan((4, 6), 2, len(sampler.table.t), 0, max_offset=1)
    assert plan.field == (6, 8)  # a margin of one window
    plan = grid_network.plan((4, 6), 2, len(sampler.table.t), 0, max_offset=0)
    assert plan.field == (4, 6)
    assert set(sampler.chunks_of_kinds(plan)) == {"plain"}


def test_embeddings_without_tokens_are_refused(tmp_path):
    fields = (store.Field("embedding", (4 * DIM,), "float16"),)
    writer = store.StoreWriter(tmp_path, fields)
    writer.append(embedding=np.zeros((3, 4 * DIM)))
    writer.close(dim=DIM, tokens_per_side=2)
    line = r"must hold 2 × 2 tokens .* got 2 × 2 and embedding; --config.force=embeddings"
    with pytest.raises(ValueError, match=line):
        token_sampler.require_whole(store.Store(tmp_path), 2)
    fields += (store.Field("whole", (DIM,), "float32"),)
    writer = store.StoreWriter(tmp_path, fields)
    writer.append(embedding=np.zeros((3, 4 * DIM)), whole=np.zeros((3, DIM)))
    writer.close(dim=DIM, tokens_per_side=2)
    token_sampler.require_whole(store.Store(tmp_path), 2)
    with pytest.raises(ValueError, match=r"must hold 4 × 4 tokens .* got 2 × 2"):
        token_sampler.require_whole(store.Store(tmp_path), 4)
