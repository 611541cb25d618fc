"""Models of bags: what their equations promise, and a problem that a mean cannot solve."""

import functools

import jax
import numpy as np
import pytest

from ssldiff_jax.evaluation.downstream import fitting, mil, mil_models
from ssldiff_jax.evaluation.metrics import classification

LENGTH, DIM = 12, 6
FIT = fitting.FitConfig(200, 16, 3e-3, 0.001)
CONFIG = mil_models.MilConfig(32, 16, 0.1, 3, 0.7, FIT)
ATTENDING = ("abmil", "clam", "dsmil")


def planted(generator, count, *, width=5.0):
    """Bags of noise; in those of class 1 one instance lies apart, the others shifted a little the
    other way, so that means are the same."""
    label, bags = generator.integers(2, size=count), []
    for is_positive in label:
        bag = generator.normal(size=(generator.integers(6, LENGTH + 1), DIM))
        if is_positive:
            bag[:, 0] -= width / (len(bag) - 1)
            bag[generator.integers(len(bag)), 0] += width * (1 + 1 / (len(bag) - 1))
        bag[:, 0] -= bag[:, 0].mean()
        bags.append(bag.astype(np.float32))
    return mil.Bags.of(bags, LENGTH), label


@functools.cache
def learner(name):
    return mil.Learner(name, CONFIG, length=LENGTH, dim=DIM, num_classes=2)


@functools.cache
def fitted(name):
    return learner(name).fit(*planted(np.random.default_rng(0), 200), seed=0)


def auc_of(name):
    bags, label = planted(np.random.default_rng(1), 200)
    found = learner(name).predict(fitted(name), bags).probability
    return classification.auc(found, label, np.ones((1, 200)))[0]


@pytest.mark.parametrize("name", ATTENDING)
def test_a_planted_instance_is_found(name):
    assert auc_of(name) > 0.9


def test_the_mean_cannot_find_it():
    assert auc_of("mean") < 0.65


@pytest.mark.parametrize("name", list(mil_models.MODELS))
def test_attention_sums_to_one_and_knows_no_padding(name):
    bags, _ = planted(np.random.default_rng(2), 20)
    output = learner(name).predict(fitted(name), bags)
    np.testing.assert_allclose(output.attention.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(output.probability.sum(axis=1), 1, atol=1e-5)
    assert (output.attention[~bags.known] == 0).all()
    model, params = learner(name)._module, {"params": fitted(name)}
    x = bags.embedding
    noise = np.where(bags.known[..., None], x, 1e3).astype(np.float32)
    again = model.apply(params, noise, bags.known)
    np.testing.assert_allclose(again.probability, output.probability, atol=1e-5)
    label = np.zeros(20, int)
    losses = [model.apply(params, v, bags.known, label, method="loss") for v in (x, noise)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("name", list(mil_models.MODELS))
def test_the_order_of_instances_is_nothing(name):
    bags, _ = planted(np.random.default_rng(3), 20)
    order = np.random.default_rng(4).permutation(LENGTH)
    shuffled = mil.Bags(bags.embedding[:, order], bags.known[:, order])
    predict = lambda bags: learner(name).predict(fitted(name), bags)
    np.testing.assert_allclose(predict(bags).probability, predict(shuffled).probability, atol=1e-5)
    np.testing.assert_allclose(
        predict(bags).attention[:, order], predict(shuffled).attention, atol=1e-5
    )


@pytest.mark.parametrize("name", ["abmil", "clam"])
def test_attention_is_on_the_planted_instance(name):
    bags, label = planted(np.random.default_rng(5), 100)
    attention = learner(name).predict(fitted(name), bags).attention[label == 1]
    planted_at = bags.embedding[label == 1, :, 0].argmax(axis=1)
    assert np.mean(attention.argmax(axis=1) == planted_at) > 0.8


@pytest.mark.parametrize("name", ATTENDING)
def test_one_trace_and_the_same_again(name):
    bags, label = planted(np.random.default_rng(6), 24)
    first = learner(name)(bags[:20], label[:20], bags, seed=3)
    np.testing.assert_array_equal(first, learner(name)(bags[:20], label[:20], bags, seed=3))
    assert not np.array_equal(first, learner(name)(bags[:20], label[:20], bags, seed=4))
    assert learner(name).num_traces == 1


def test_gated_attention_is_equation_9():
    module = mil_models.GatedAttention(4)
    h = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
    known = np.array([[True, True, True, True, False]])
    params = module.init(jax.random.key(0), h, known)["params"]
    of = lambda name: h[0, :4] @ params[name]["kernel"] + params[name]["bias"]
    score = np.tanh(of("value")) / (1 + np.exp(-of("gate"))) @ params["score"]["kernel"][:, 0]
    wanted = np.exp(score) / np.exp(score).sum()
    found = module.apply({"params": params}, h, known)[0]
    np.testing.assert_allclose(found, [*wanted, 0], rtol=1e-5)


def test_the_smooth_svm_has_a_margin():
    score = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    found = mil_models.smooth_svm(score, np.array([0, 0, 0]))
    np.testing.assert_allclose(found, [np.log(1 + np.e), np.log1p(np.exp(-8)), 10], atol=1e-3)


def test_instances_of_tiny_bags_are_not_clustered():
    """One instance cannot be both of most and of least attention."""
    model = CONFIG.module("clam", 2)
    x, known = np.ones((2, LENGTH, DIM), np.float32), np.zeros((2, LENGTH), bool)
    known[:, 0] = True
    params = model.init(jax.random.key(0), x, known)
    logits = np.log(model.apply(params, x, known).probability)
    loss = model.apply(params, x, known, np.array([0, 1]), method="loss")
    np.testing.assert_allclose(loss, -0.7 * (logits[0, 0] + logits[1, 1]) / 2, rtol=1e-4)


def test_sets_of_bags_are_joined_and_chosen_from():
    bags, _ = planted(np.random.default_rng(7), 6)
    both = bags[[0, 2]] + bags[[5]]
    assert len(both) == 3
    np.testing.assert_array_equal(both.embedding, bags.embedding[[0, 2, 5]])
    np.testing.assert_array_equal(both.known, bags.known[[0, 2, 5]])


def test_bad_bags_are_one_line():
    good = np.ones((3, DIM), np.float32)
    for bags, length, message in (
        ([], 0, "one or more, got none"),
        ([good, good[:0]], 0, r"hold 1…3 embeddings, got from 0 to 3"),
        ([good, good], 2, r"hold 1…2 embeddings, got from 3 to 3"),
        ([good, good * np.float32(np.nan)], 0, "must be finite, got 1 of 2 .* first 1"),
    ):
        with pytest.raises(ValueError, match=message):
            mil.Bags.of(bags, length)
    with pytest.raises(ValueError, match="the training bags must show two classes"):
        learner("mean").fit(mil.Bags.of([good, good], LENGTH), np.array([0, 0]), seed=0)
    with pytest.raises(ValueError, match="0 ≤ dropout < 1"):
        mil_models.MilConfig(32, 16, 1.0, 3, 0.7, FIT)
