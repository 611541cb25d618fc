"""Texts that are worded from labels, and are read as these."""

import jax
import numpy as np
import optax
import pytest
import small_configs

from ssldiff_jax.diffusion import process
from ssldiff_jax.prior import conditions, loss, network
from ssldiff_jax.train import step as step_lib

SPEC = conditions.ConditionSpec(("wet", "dry"), text_phrases=3, text_dim=4, reads_labels=True)
SIZES = network.NetworkConfig(width=32, depth=1, num_heads=2)
NEVER = conditions.DropRates(all=0.0, kind=0.0, phrase=0.0, text_noise=0.0)


def phrases(count, seed=0):
    """Three phrases each; every one's first number adds to "wet", its second to "dry"."""
    text = np.random.default_rng(seed).normal(size=(count, 3, 4)).astype(np.float32)
    labels = 0.5 + 0.1 * text[..., :2].sum(axis=1)
    return text, labels


def said(text, labels=None, known=True):
    return SPEC.pack(len(text), labels=labels, text=text, text_known=np.full(text.shape[:2], known))


def trained(drop=NEVER, steps=300):
    """A prior of white noise, so that all there is to learn is to read."""
    noising = process.Process(
        small_configs.section("denoiser.schedule", name="cosine", num_timesteps=1000), "v"
    )
    model = network.GridDenoiser(SIZES, SPEC)
    task = loss.PriorTask(model, noising, drop, min_snr_gamma=0.0, grid_shape=(1, 1, 2))
    key, tx = jax.random.key(0), optax.adam(3e-3)
    generator = np.random.default_rng(1)

    def batch(number):
        text, labels = phrases(64, number)
        grid = generator.normal(size=(64, 1, 1, 2)).astype(np.float32)
        return {"grid": grid, "condition": said(text, labels), "index": np.arange(64) + 64 * number}

    state = step_lib.init_state(task, tx, key, batch(0))
    update = step_lib.Update(task, tx, 0.99)
    step = jax.jit(lambda s, b: step_lib.train_step(s, b, key, update=update))
    for number in range(steps):
        state, metrics = step(state, batch(number))
    return model, state.ema_params, metrics


@pytest.fixture(scope="module")
def whole():
    return trained()


@pytest.fixture(scope="module")
def with_gaps():
    return trained(conditions.DropRates(all=0.0, kind=0.0, phrase=0.5, text_noise=0.0), 1200)


def read(params, condition):
    reader = network.TextReader(SPEC, SIZES.width)
    weights = {"params": params["condition"]["reader"]}
    return np.asarray(reader.apply(weights, SPEC.unpack(condition)))


def test_a_text_is_read_as_the_labels_it_is_worded_from(whole):
    _, params, metrics = whole
    text, labels = phrases(200, seed=999)
    # Labels vary by .17.
    assert np.abs(read(params, said(text)) - labels).mean() < 0.03
    assert float(metrics["reading"]) < 0.003


def test_phrases_are_read_alike_in_any_order_and_company(whole):
    _, params, _ = whole
    text, _ = phrases(5)
    whole_text = read(params, said(text))
    np.testing.assert_allclose(read(params, said(text[:, ::-1])), whole_text, atol=1e-5)
    silent = read(params, said(text, known=False))
    alone = [read(params, said(text, known=np.arange(3) == i)) for i in range(3)]
    np.testing.assert_allclose(sum(alone) - 2 * silent, whole_text, atol=1e-5)


def test_of_what_is_left_out_the_mean_is_read(with_gaps):
    """Phrases that are not said have a mean of nothing, so that what is said keeps its part."""
    _, params, _ = with_gaps
    text, _ = phrases(200, seed=999)
    expected = 0.5 + 0.1 * text[:, 0, :2]
    found = read(params, said(text, known=np.arange(3) == 0))
    assert np.abs(found - expected).mean() < 0.05


def test_a_text_stands_for_labels_that_are_not_given_and_only_these(whole):
    model, params, _ = whole
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    params = tree.unflatten(
        [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    )
    x, t = np.ones((2, 1, 1, 2), np.float32), np.array([300, 300])
    run = lambda condition: np.asarray(model.apply({"params": params}, x, t, condition))
    (text, labels), (other, _) = phrases(2), phrases(2, seed=1)
    labels = labels.astype(np.float32)
    np.testing.assert_allclose(run(said(text, labels)), run(said(other, labels)), atol=1e-6)
    assert np.abs(run(said(text)) - run(said(other))).max() > 1e-4
    half = labels * [1, np.nan]
    assert np.abs(run(said(text, half)) - run(said(other, half))).max() > 1e-5


def test_what_no_text_says_is_no_label(whole):
    spec, _ = SPEC.restrict(said(phrases(2)[0]))
    assert spec.labels == SPEC.labels
    assert spec.reads_labels
    spec, _ = SPEC.restrict(SPEC.pack(2, labels=np.ones((2, 2), np.float32)))
    assert not spec.reads_labels
    assert spec.text_phrases == 0


def test_reading_is_learnt_from_labels_alone():
    """The denoiser's error does not move the reader."""
    model = network.GridDenoiser(SIZES, SPEC)
    x, t = np.ones((2, 1, 1, 2), np.float32), np.array([300, 300])
    condition = said(phrases(2)[0])
    params = model.init(jax.random.key(0), x, t, condition)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    gradient = jax.grad(lambda p: (model.apply({"params": p}, x, t, condition) ** 2).sum())(params)[
        "condition"
    ]
    assert all(not np.any(g) for g in jax.tree.leaves(gradient["reader"]))
    assert np.abs(gradient["present"]).max() > 0


def test_some_phrase_is_always_left_and_what_is_left_out_is_zero():
    drop = conditions.DropRates(all=0.0, kind=0.0, phrase=0.6, text_noise=0.0)
    text, _ = phrases(2000)
    kept = SPEC.unpack(np.asarray(drop(SPEC, said(text), np.arange(2000), jax.random.key(0))))
    known = kept["text_known"]
    assert known.sum(axis=1).min() == 1
    # Each is left out in .6, but for those of which all would be.
    assert known.mean() == pytest.approx(0.4 + 0.6**3 / 3, abs=0.03)
    left = kept["text"].reshape(2000, 3, 4)
    np.testing.assert_array_equal(left, text * known[..., None])
