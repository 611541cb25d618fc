"""Optimisers by their formulas, and groups of parameters as data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.train import optimizer

ADAMW = optimizer.OptimizerConfig("adamw", 0.1, 1, "constant", 0.5, (), 0.99, 1e9, 0.9)
SHAPES = {"conv": {"kernel": (3, 3, 4, 8), "bias": (8,)}, "out": {"kernel": (8, 5)}}


def normal(seed):
    source = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(source.normal(size=shape), jnp.float32)
    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def second_update(config):
    """The update of the second step: in the first the rate is still zero."""
    tx, params = config.transform(100), normal(0)
    state = tx.init(params)
    for seed in (1, 2):
        updates, state = tx.update(normal(seed), state, params)
    return updates, params


def test_groups_multiply_rate_and_decay():
    groups = ("conv/ = 0.5, 0", "kernel$ = 2, 3")
    found, params = second_update(dataclasses.replace(ADAMW, groups=groups))
    plain, _ = second_update(dataclasses.replace(ADAMW, weight_decay=0.0))
    for leaf in ("kernel", "bias"):
        np.testing.assert_allclose(found["conv"][leaf], 0.5 * plain["conv"][leaf], rtol=1e-5)
    wanted = 2 * (plain["out"]["kernel"] - 0.1 * 3 * 0.5 * params["out"]["kernel"])
    np.testing.assert_allclose(found["out"]["kernel"], wanted, rtol=1e-4)


def test_vectors_never_decay():
    found, _ = second_update(ADAMW)
    plain, _ = second_update(dataclasses.replace(ADAMW, weight_decay=0.0))
    np.testing.assert_array_equal(found["conv"]["bias"], plain["conv"]["bias"])
    assert np.abs(found["conv"]["kernel"] - plain["conv"]["kernel"]).min() > 0


def test_a_group_that_names_nothing_is_refused():
    config = dataclasses.replace(ADAMW, groups=("bias$ = 1, 0", "unet/.* = 1, 0"))
    with pytest.raises(ValueError, match="must name parameters, got 'unet/"):
        second_update(config)


@pytest.mark.parametrize("group", ["bias$", "bias$ = 1", "= 1, 0", "bias = one, 0"])
def test_a_group_must_read_as_one(group):
    with pytest.raises(ValueError, match="regex = rate, decay") as caught:
        dataclasses.replace(ADAMW, groups=(group,))
    assert repr(group) in str(caught.value)


def test_muon_moves_matrices_by_orthogonal_ones_of_adams_size():
    config = dataclasses.replace(ADAMW, name="muon", weight_decay=0.0)
    found, _ = second_update(config)
    for kernel in (found["conv"]["kernel"], found["out"]["kernel"]):
        matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        values = np.linalg.svd(matrix / 0.1, compute_uv=False)
        # Newton-Schulz brings singular values near 1; then the RMS is made that of Adam.
        scale = 0.2 * max(matrix.shape) ** 0.5
        assert (values > 0.6 * scale).all()
        assert (values < 1.3 * scale).all()
    # Vectors by Adam with Nesterov's momentum: m̂ looks a step ahead.
    g1, g2 = (np.asarray(normal(seed)["conv"]["bias"], np.float64) for seed in (1, 2))
    m = 0.9 * (0.9 * 0.1 * g1 + 0.1 * g2) / (1 - 0.9**3) + 0.1 * g2 / (1 - 0.9**2)
    v = (0.99 * 0.01 * g1**2 + 0.01 * g2**2) / (1 - 0.99**2)
    np.testing.assert_allclose(found["conv"]["bias"], -0.1 * m / np.sqrt(v), rtol=1e-4)


def test_adafactor_keeps_rows_and_columns_of_large_matrices():
    config = dataclasses.replace(ADAMW, name="adafactor")
    large = {"kernel": jnp.ones((256, 512))}
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(c.transform(10).init(large)))
        for c in (config, ADAMW)
    ]
    assert sizes[0] < 1000 < 2 * 256 * 512 <= sizes[1]
    found, _ = second_update(dataclasses.replace(config, weight_decay=0.0))
    for update in jax.tree.leaves(found):
        # One RMS at the most, by which it is clipped, times the rate.
        assert 0.01 < float(jnp.sqrt(jnp.mean(update**2))) <= 0.1 * 1.001
