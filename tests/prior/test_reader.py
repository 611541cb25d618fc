"""Texts that are worded from labels, and are read as these."""

import jax
import numpy as np
import optax
import pytest
import small_configs

from ssldiff_jax.diffusion import process
from ssldiff_jax.prior import conditions, loss, network
from ssldiff_jax.prior import reader as reader_lib
from ssldiff_jax.train import step as step_lib

NAMES = [f"{kind} {area}" for kind in ("wet", "dry", "cold") for area in range(5)]
SPEC = conditions.ConditionSpec(
    tuple(NAMES), text_phrases=3, text_dim=4, reads_labels=True,
    areas=tuple(tuple(range(5 * k, 5 * k + 5)) for k in range(3)),
)  # fmt: skip
SIZES = network.NetworkConfig(width=32, depth=1, num_heads=2)
NEVER = conditions.DropRates(all=0.0, kind=0.0, phrase=0.0, text_noise=0.0)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def labels_of(in_quadrants):
    """Of (N, 4, 3) parts, in the order of NAMES."""
    whole = in_quadrants.mean(axis=1, keepdims=True)
    return np.concatenate([whole, in_quadrants], axis=1).swapaxes(1, 2).reshape(-1, 15)


def phrases(count, seed=0):
    """Three phrases each; the first number of every one speaks for "wet" in the second quadrant,
    its second against "cold" in all."""
    text = np.random.default_rng(seed).normal(size=(count, 3, 4)).astype(np.float32)
    logits = np.zeros((count, 4, 3))
    logits[:, 1, 0] = text[..., 0].sum(axis=1)
    logits[:, :, 2] -= text[..., 1].sum(axis=1)[:, None]
    return text, softmax(logits).astype(np.float32)


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
        text, parts = phrases(64, number)
        grid = generator.normal(size=(64, 1, 1, 2)).astype(np.float32)
        condition = said(text, labels_of(parts))
        return {"grid": grid, "condition": condition, "index": np.arange(64) + 64 * number}

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
def noisy(whole):
    """The same with parameters that are zero nowhere."""
    _, params, _ = whole
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    params = tree.unflatten(moved)
    x, t = np.ones((2, 1, 1, 2), np.float32), np.array([300, 300])

    def run(condition, spec=SPEC):
        model = network.GridDenoiser(SIZES, spec)
        return np.asarray(model.apply({"params": params}, x, t, condition))

    return run


def read(params, condition):
    reader = reader_lib.TextReader(SPEC, SIZES.width)
    weights = {"params": params["condition"]["reader"]}
    return np.asarray(reader.apply(weights, SPEC.unpack(condition)))


def test_a_text_is_read_as_the_labels_it_is_worded_from(whole):
    _, params, metrics = whole
    text, parts = phrases(200, seed=999)
    found = read(params, said(text))
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    assert np.abs(found - parts).mean() < 0.03
    # Cross entropy of what is right: its entropy.
    entropy = -(parts * np.log(parts)).sum(axis=-1).mean()
    assert float(metrics["reading"]) == pytest.approx(entropy, abs=0.08)


def test_a_phrase_says_alike_in_any_order_and_company(whole):
    _, params, _ = whole
    text, _ = phrases(5)
    whole_text = read(params, said(text))
    np.testing.assert_allclose(read(params, said(text[:, ::-1])), whole_text, atol=1e-5)
    log = lambda known: np.log(read(params, said(text, known=known)))
    alone = sum(log(np.arange(3) == i) for i in range(3))
    np.testing.assert_allclose(softmax(alone - 2 * log(known=False)), whole_text, atol=1e-4)


def test_of_phrases_that_are_left_out_the_mean_is_read():
    _, params, _ = trained(conditions.DropRates(0.0, kind=0.0, phrase=0.5, text_noise=0.0), 1200)
    text, _ = phrases(200, seed=999)
    # What the other two say has a mean of nothing, and is averaged over.
    rest, logits = np.random.default_rng(0).normal(0, 2**0.5, (500, 2)), np.zeros((200, 500, 4, 3))
    logits[..., 1, 0] = text[:, :1, 0] + rest[:, 0]
    logits[..., 2] -= (text[:, :1, 1] + rest[:, 1])[..., None]
    expected = softmax(logits).mean(axis=1)
    found = read(params, said(text, known=np.arange(3) == 0))
    assert np.abs(found - expected).mean() < 0.04


def test_labels_of_areas_are_those_that_measures_give():
    parts = phrases(7)[1]
    found = reader_lib.labels_of_quadrants(SPEC, parts)
    np.testing.assert_allclose(found, labels_of(parts), atol=1e-6)


def test_a_text_stands_for_labels_that_are_not_given_and_only_these(noisy):
    (text, parts), (other, _) = phrases(2), phrases(2, seed=1)
    labels = labels_of(parts).astype(np.float32)
    np.testing.assert_allclose(noisy(said(text, labels)), noisy(said(other, labels)), atol=1e-6)
    assert np.abs(noisy(said(text)) - noisy(said(other))).max() > 1e-4
    some = np.where(np.arange(15) % 2, labels, np.nan)
    assert np.abs(noisy(said(text, some)) - noisy(said(other, some))).max() > 1e-5


def test_a_narrower_spec_finds_the_same(noisy):
    text, parts = phrases(2)
    conditions_of = {
        (True, True): said(text),
        (True, False): SPEC.pack(2, labels=labels_of(parts)),
        (False, False): SPEC.pack(2),
    }
    for (has_labels, reads_labels), condition in conditions_of.items():
        spec, narrow = SPEC.restrict(condition)
        assert spec.reads_labels == reads_labels
        assert bool(spec.labels) == bool(spec.areas) == has_labels
        assert bool(spec.text_phrases) == reads_labels
        np.testing.assert_allclose(noisy(narrow, spec), noisy(condition), atol=1e-5)


def test_reading_is_learnt_from_labels_alone():
    """The denoiser's error does not move the reader."""
    model = network.GridDenoiser(SIZES, SPEC)
    x, t = np.ones((2, 1, 1, 2), np.float32), np.array([300, 300])
    condition = said(phrases(2)[0])
    params = model.init(jax.random.key(0), x, t, condition)["params"]
    params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params
    )
    loss_of = lambda p: (model.apply({"params": p}, x, t, condition) ** 2).sum()
    gradient = jax.grad(loss_of)(params)["condition"]
    assert all(not np.any(g) for g in jax.tree.leaves(gradient["reader"]))
    assert np.abs(gradient["present"]).max() > 0


def test_some_phrase_is_always_left_and_what_is_left_out_is_zero():
    drop = conditions.DropRates(all=0.0, kind=0.0, phrase=0.6, text_noise=0.0)
    text, _ = phrases(2000)
    kept = SPEC.unpack(np.asarray(drop(SPEC, said(text), np.arange(2000), jax.random.key(0))))
    known = kept["text_known"]
    assert known.sum(axis=1).min() == 1
    # Each is left out in .6, but for the last of those of which all would be.
    assert known.mean() == pytest.approx(0.4 + 0.6**3 / 3, abs=0.03)
    np.testing.assert_array_equal(kept["text"].reshape(2000, 3, 4), text * known[..., None])
