"""Attention is its formula, in one piece or in blocks of queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssldiff_jax.core import attention


def formula(q, k, v, num_heads):
    """Softmax(q·kᵀ / √d)·v in float64, head by head."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    heads = []
    for columns in np.split(np.arange(q.shape[-1]), num_heads):
        of = np.exp(q[..., columns] @ k[..., columns].swapaxes(1, 2) / len(columns) ** 0.5)
        heads.append(of / of.sum(axis=-1, keepdims=True) @ v[..., columns])
    return np.concatenate(heads, axis=-1)


def drawn(num_queries, num_keys, dim=12, batch=2):
    rng = np.random.default_rng(num_queries)
    sizes = (num_queries, num_keys, num_keys)
    return [rng.normal(size=(batch, n, dim)).astype(np.float32) for n in sizes]


# In one piece; in blocks of 512, of 64; too many for one piece, and in no blocks.
@pytest.mark.parametrize("sizes", [(9, 7), (1024, 1024), (1600, 700), (1100, 1000)])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_attention_is_its_formula(sizes, num_heads):
    q, k, v = drawn(*sizes)
    got = jax.jit(attention.attend, static_argnums=3)(q, k, v, num_heads)
    np.testing.assert_allclose(got, formula(q, k, v, num_heads), atol=2e-6)


def test_large_logits_do_not_overflow():
    q, k, v = drawn(1024, 1024)
    got = np.asarray(attention.attend(100 * q, 100 * k, v, 1))
    # The largest logit has all the weight.
    nearest = (q @ k.swapaxes(1, 2)).argmax(axis=-1)
    expected = np.take_along_axis(v, nearest[..., None], axis=1)
    assert np.median(np.abs(got - expected)) < 1e-6


def test_the_gradient_of_blocks_is_that_of_one_piece(monkeypatch):
    def gradient():
        loss = lambda *of: jnp.sum(jnp.sin(attention.attend(*of, 3)))
        return jax.grad(loss, argnums=(0, 1, 2))(*drawn(1024, 1024))

    blocks = gradient()
    monkeypatch.setattr(attention, "_MANY", 10**9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), blocks, gradient())
