import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.autoencoder import autoencoder
from ssldiff_jax.diffusion import (
    conditioning,
    embedding_transformer,
    guidance,
    levels,
    loss,
    process,
    unet,
)

SIZES = embedding_transformer.TransformerConfig(depth=1, num_heads=2, mlp_width=8)


def test_embeddings_are_standardised_as_torch_has_it():
    # mean 2.5, squares (2.25 + .25 + .25 + 2.25) / 3 = 5/3.
    z = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    expected = (z - 2.5) / (np.sqrt(5 / 3) + 1e-8)
    np.testing.assert_allclose(embedding_transformer.standardised(z), expected, rtol=1e-6)
    # Where all numbers are alike the deviation is 0, and 1e-8 is all that stands below.
    np.testing.assert_array_equal(embedding_transformer.standardised(np.ones((2, 5))), 0.0)


@pytest.fixture(scope="module")
def model():
    """(apply, params) of a conditioner whose tokens stay where they are put: no attention, no MLP,
    no positions."""
    net = embedding_transformer.EmbeddingTransformer(SIZES, 4, 3)
    zero = jnp.zeros(1, jnp.int32)
    params = jax.tree.map(np.array, net.init(jax.random.key(0), jnp.ones((1, 1, 4)), zero, zero))
    params = params["params"]
    params["position"][:] = 0
    params["reduce"]["kernel"][:], params["reduce"]["bias"][:] = np.eye(4), 0
    params["out"]["kernel"][:] = np.eye(4)
    for layer in ("proj", "fc2"):
        params["block_0"][layer]["kernel"][:] = 0
    return jax.jit(lambda *args: net.apply({"params": params}, *args)), params


@pytest.mark.parametrize("count", [1, 2, 4, 9, 16, 33, 64])
def test_embeddings_stand_in_the_middle_of_64_places(model, count):
    apply, params = model
    source = np.random.default_rng(count)
    embedding = source.normal(size=(2, 64, 4)).astype(np.float32)
    level = np.array([2, 0], np.int32)
    tokens = apply(embedding, np.full(2, count, np.int32), level)
    norm = lambda x, eps: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    for i in range(2):
        # The rule as it is written: the level, then pad tokens, one by one, around the embeddings.
        places = [params["level"]["embedding"][level[i]], *[params["pad"][0, 0]] * 64]
        first = 32 if count == 1 else 32 - count // 2
        for j in range(count):
            places[1 + first + j] = embedding[i, j]
        expected = norm(norm(np.stack(places), 1e-6), 1e-5)
        np.testing.assert_allclose(tokens[i], expected, atol=1e-5)


UNET = small_configs.section(
    "denoiser.unet",
    channels=8,
    channel_mult=(1,),
    num_res_blocks=1,
    attention_levels=(0,),
    context_dim=8,
)
SIDES = (1, 2, 4)


@pytest.fixture(scope="module")
def zoom():
    """A denoiser of three levels by the transformer: (config, apply, params)."""
    config = conditioning.DenoiserConfig(UNET, 6, num_levels=3, transformer=SIZES, sides=SIDES)
    return config, *drawn(config)


def drawn(config):
    """(apply, random parameters) of a denoiser."""
    net = conditioning.Denoiser(config)
    x, t = jnp.zeros((1, 4, 4, 3)), jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, jnp.zeros((1, config.condition_dim)))
    source = np.random.default_rng(0)
    normal = lambda leaf: 0.3 * source.standard_normal(leaf.shape, np.float32)
    params = jax.tree.map(normal, shapes["params"])
    return jax.jit(lambda x, t, e: net.apply({"params": params}, x, t, e)), params


def latents(count, seed=1):
    source = np.random.default_rng(seed)
    return source.normal(size=(count, 4, 4, 3)).astype(np.float32), np.arange(count) + 5


def test_what_lies_behind_the_embeddings_of_a_level_is_not_seen(zoom):
    config, apply, _ = zoom
    source = np.random.default_rng(2)
    x, t = latents(3)
    rows = []
    for level, side in enumerate(SIDES):
        own = source.normal(size=(1, side * side * 6)).astype(np.float32)
        rows.append(config.with_level(own, level))
    condition = np.concatenate(rows)
    assert condition.shape == (3, 16 * 6 + 1)
    assert condition[:, -1].tolist() == [1, 2, 3]
    prediction = apply(x, t, condition)
    filled = condition.copy()
    for row, side in zip(filled, SIDES, strict=True):
        row[side * side * 6 : -1] = 3.0
    np.testing.assert_allclose(apply(x, t, filled), prediction, atol=1e-6)
    # Each level alone: the level of a window is its own, whatever else is in the batch.
    for i in range(3):
        alone = apply(x[i : i + 1], t[i : i + 1], condition[i : i + 1])
        np.testing.assert_allclose(alone[0], prediction[i], atol=1e-5)


def test_the_null_condition_of_the_transformer_is_zero_tokens(zoom):
    config, apply, params = zoom
    x, t = latents(2)
    condition = config.with_level(np.ones((2, 6), np.float32), 1)
    null = config.null(jnp.asarray(condition))
    np.testing.assert_array_equal(null, 0.0)
    net = unet.UNet(UNET)
    expected = jax.jit(net.apply)({"params": params["unet"]}, x, t, jnp.zeros((2, 65, 8)))
    np.testing.assert_allclose(apply(x, t, null), expected, atol=1e-6)


@pytest.fixture(scope="module")
def beside():
    """A denoiser that is told its level beside the timestep, and one without levels."""
    config = conditioning.DenoiserConfig(UNET, 6, num_levels=3)
    return config, *drawn(config)


def test_a_level_is_added_to_the_embedding_of_the_timestep(beside):
    config, apply, params = beside
    net = conditioning.Denoiser(conditioning.DenoiserConfig(UNET, 6))
    plain = jax.jit(lambda params, *args: net.apply({"params": params}, *args))
    x, t = latents(3)
    embedding = np.random.default_rng(3).normal(size=(3, 6)).astype(np.float32)
    for level in range(3):
        # Bias is added where the level is: the same numbers from a network that has none.
        moved = jax.tree.map(np.copy, {k: v for k, v in params.items() if k != "level"})
        moved["unet"]["time_out"]["bias"] += params["level"]["table"][level]
        expected = plain(moved, x, t, embedding)
        found = apply(x, t, config.with_level(embedding, level))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_denoiser_starts_without_a_level(beside):
    config, *_ = beside
    level = levels.LevelEmbedding(config.num_levels, 4 * UNET.channels)
    params = level.init(jax.random.key(0), np.array([2]))["params"]
    assert params["table"].shape == (3, 32)
    np.testing.assert_array_equal(params["table"], 0.0)
    params = {"table": np.arange(96, dtype=np.float32).reshape(3, 32)}
    # Of no level nothing is added.
    found = level.apply({"params": params}, np.array([3, 0, 1]))
    np.testing.assert_array_equal(found, params["table"][[2, 0, 0]] * [[1], [0], [1]])


def test_guidance_keeps_the_level_where_it_is_beside_the_timestep(beside):
    config, apply, _ = beside
    x, t = latents(2)
    condition = config.with_level(np.ones((2, 6), np.float32), 2)
    null = np.array(config.null(jnp.asarray(condition)))
    np.testing.assert_array_equal(null[:, :-1], 0.0)
    np.testing.assert_array_equal(null[:, -1], 3)

    settings = guidance.GuidanceConfig(scale=2.5, interval=(0.0, 1.0), rescale=0.0)
    steps = process.Process(small_configs.section("denoiser.schedule"), "x0")
    guided = guidance.GuidedX0(apply, steps, settings, 0, config.null)
    cond, uncond = apply(x, t, condition), apply(x, t, null)
    found = guided.guided(x, t, jnp.asarray(condition))
    np.testing.assert_allclose(found, uncond + 2.5 * (cond - uncond), atol=1e-5)


@pytest.mark.parametrize("name", ["zoom", "beside"])
def test_training_teaches_the_levels_of_its_batch_alone(request, name):
    config, *_ = request.getfixturevalue(name)
    scaling = autoencoder.LatentScaling((1.0,) * 3, (0.0,) * 3)
    steps = process.Process(small_configs.section("denoiser.schedule"), "eps")
    net = conditioning.Denoiser(config)
    task = loss.DenoisingTask(net, scaling, steps, 0.0, 0.0, (4, 4, 3))
    source = np.random.default_rng(0)
    batch = {
        "moments": source.normal(size=(2, 4, 4, 3)).astype(np.float16),
        "embedding": source.normal(size=(2, config.stored_dim)).astype(np.float32),
        "level": np.array([[1], [3]], np.int32),
        "index": np.arange(2, dtype=np.int32),
    }
    spec = task.batch_spec()
    assert {k: v.shape[1:] for k, v in spec.items()} == {k: v.shape[1:] for k, v in batch.items()}
    key, params = jax.random.key(1), drawn(config)[1]
    of = lambda p: task.loss(p, batch, key, ema_params=None, extra={}).loss
    slope = jax.jit(jax.grad(of))(params)
    table = slope["level"]["table"] if name == "beside" else slope["conditioner"]["level"]
    lengths = np.linalg.norm(table["embedding"] if name == "zoom" else table, axis=1)
    assert lengths[1] == 0
    assert (lengths[[0, 2]] > 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_dropped_conditions_keep_what_the_null_keeps(beside):
    config, *_ = beside
    condition = jnp.asarray(config.with_level(np.ones((3, 6), np.float32), 1))
    drop = np.array([True, False, True])
    found = conditioning.drop_condition(condition, drop, config.null)
    np.testing.assert_array_equal(found[:, :-1], np.where(drop[:, None], 0.0, 1.0) * np.ones(6))
    np.testing.assert_array_equal(found[:, -1], 2)
