"""Tokens of a cell from its embedding: what is packed, and what a batch becomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.core import moments
from ssldiff_jax.diffusion import cells
from ssldiff_jax.prior import conditions, network, whitening
from ssldiff_jax.prior import tokens as tokens_lib

DIM = 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def section(**changes):
    sizes = {"width": 16, "depth": 1, "num_heads": 2}
    return small_configs.section("tokens", network=sizes, **changes)


def white_of(seed=0):
    """Of vectors that are far from white, another for embeddings."""

    def affine(seed):
        spread = np.eye(DIM) + 0.4 * normal(DIM, DIM, seed=seed)
        return whitening.Whitening.of(moments.Moments.of(normal(500, DIM, seed=seed) @ spread + 2))

    return tokens_lib.WhiteTokens(affine(seed), affine(seed + 1))


def test_an_embedding_is_packed_and_comes_back():
    spec = tokens_lib.spec(DIM)
    packed = spec.pack(4, embedding=normal(4, DIM))
    parts = spec.unpack(packed)
    np.testing.assert_array_equal(parts["embedding"], normal(4, DIM))
    np.testing.assert_array_equal(parts["embedding_known"], np.ones((4, 1)))
    assert packed.shape == (4, spec.dim) == (4, 4 + 1 + DIM)
    assert not spec.pack(4).any()
    with pytest.raises(ValueError, match="embedding must have 3 values, got 4"):
        spec.pack(4, embedding=normal(4, 4))
    # What no condition says is no token of the network.
    assert spec.restrict(packed)[0] == spec
    assert spec.restrict(spec.pack(4))[0].embedding_dim == 0


def test_conditions_without_an_embedding_are_as_they_were():
    plain = conditions.ConditionSpec(("water",), ("age",), 2, 4)
    assert plain.dim == 4 + 2 + 2 + 2 + 8
    assert list(plain.unpack(plain.pack(1))["embedding"].shape) == [1, 0]


def test_an_embedding_is_left_out_with_everything_only():
    spec = tokens_lib.spec(DIM)
    condition = spec.pack(4000, embedding=1 + np.abs(normal(4000, DIM)))
    drop = conditions.DropRates(all=0.2, kind=0.9, phrase=0.0, text_noise=0.0)
    dropped = np.asarray(drop(spec, condition, jnp.arange(4000), jax.random.key(0)))
    is_null = ~dropped.any(axis=1)
    assert abs(is_null.mean() - 0.2) < 0.03
    np.testing.assert_array_equal(dropped[~is_null], condition[~is_null])


def test_a_network_hears_the_embedding_at_every_token():
    model = network.GridDenoiser(network.NetworkConfig(16, 1, 2), tokens_lib.spec(DIM))
    x, t = normal(2, 2, 2, DIM), np.array([100, 800])
    spec = model.spec
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, spec.pack(2))["params"]
    source = np.random.default_rng(0)
    params = jax.tree.map(lambda p: 0.3 * source.normal(size=p.shape).astype(np.float32), shapes)
    run = lambda embedding: model.apply({"params": params}, x, t, spec.pack(2, embedding=embedding))
    moved = np.abs(run(normal(2, DIM)) - run(normal(2, DIM, seed=1)))
    assert moved.mean(axis=-1).min() > 1e-3
    # The null condition is one that says nothing, not an embedding of zeros.
    assert np.abs(run(None) - run(np.zeros((2, DIM), np.float32))).max() > 1e-3


@pytest.mark.parametrize("per_side", [2, 4])
@pytest.mark.parametrize("num_cells", [1, 4])
def test_batches_become_white_tokens_with_their_embedding(num_cells, per_side):
    """Of several cells one by its place in the stream, with its own embedding."""
    white, count = white_of(), 8
    task = section().task(per_side, DIM, num_cells, white)
    tokens = normal(count, num_cells, per_side**2 * DIM).astype(np.float16)
    whole = normal(count, num_cells, DIM, seed=1)
    place = cells.cell_offsets(np.zeros((count, 2)))
    packed = tokens[:, 0] if num_cells == 1 else cells.pack(tokens, place).astype(np.float16)
    index = np.arange(count) + 5
    batch = {"embedding": packed, "whole": whole.reshape(count, -1), "index": index}
    spec = task.batch_spec()
    assert {name: (values.shape[1:], values.dtype) for name, values in batch.items()} == {
        name: (one.shape[1:], batch["index"].dtype if name == "index" else one.dtype)
        for name, one in spec.items()
    }
    _, extra = task.init(jax.random.key(0), batch)
    as_prior = task._white(batch, extra)
    number = index % num_cells
    cell = tokens[np.arange(count), number].astype(np.float32)
    expected = white.tokens.apply(cell.reshape(count, per_side, per_side, DIM))
    np.testing.assert_allclose(as_prior["grid"], expected, atol=1e-5)
    # The same as a sampler packs on the host.
    said = white.condition(whole[np.arange(count), number], per_side)
    np.testing.assert_allclose(as_prior["condition"], said, atol=1e-5)
    np.testing.assert_array_equal(as_prior["index"], index)


def test_first_values_do_not_depend_on_what_makes_tokens_white():
    white = white_of()
    batch = {
        "embedding": np.zeros((2, 4 * DIM), np.float16),
        "whole": np.zeros((2, DIM), np.float32),
        "index": np.arange(2),
    }
    known, unknown = (section().task(2, DIM, 1, w) for w in (white, None))
    (a, extra), (b, shapes) = (task.init(jax.random.key(0), batch) for task in (known, unknown))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(np.shape, extra) == jax.tree.map(np.shape, shapes)
    np.testing.assert_array_equal(extra["whole"]["matrix"], white.whole.matrix)
    # No gradient reaches it, and a step leaves it as it is.
    output = known.loss(a, batch, jax.random.key(1), ema_params=a, extra=extra)
    jax.tree.map(np.testing.assert_array_equal, output.extra, extra)


def test_white_tokens_are_the_same_from_their_files(tmp_path):
    white = white_of()
    white.save(tmp_path)
    again = tokens_lib.WhiteTokens.load(tmp_path)
    for name in ("tokens", "whole"):
        one, other = getattr(white, name), getattr(again, name)
        np.testing.assert_array_equal(one.matrix, other.matrix)
    assert np.abs(again.tokens.mean - again.whole.mean).max() > 0


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_drop_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match=r"config.tokens.cond_drop_rate must lie in \[0, 1\], got"):
        section(cond_drop_rate=rate)
