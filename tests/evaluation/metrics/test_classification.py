"""Scores of predicted classes, against pairs counted one by one."""

import dataclasses

import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import classification


def brute_auc(score, positive):
    pairs = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    return float(np.mean(pairs))


def once(count):
    return np.ones((1, count))


@pytest.mark.parametrize("values", [3, 20, 10**6])
def test_auc_counts_pairs_and_ties(values):
    generator = np.random.default_rng(values)
    score = generator.integers(values, size=60).astype(float)
    positive = generator.integers(2, size=60).astype(bool)
    found = classification.rank_auc(score, positive, once(60))
    np.testing.assert_allclose(found, [brute_auc(score, positive)])


def test_a_weight_is_a_repetition():
    generator = np.random.default_rng(1)
    probability = generator.dirichlet([1, 1, 1], 40).round(1)
    label, weights = generator.integers(3, size=40), generator.integers(0, 4, (5, 40))
    for score in classification.SCORES.values():
        found = score(probability, label, weights)
        for value, w in zip(found, weights, strict=True):
            rows = np.repeat(np.arange(40), w)
            repeated = score(probability[rows], label[rows], once(len(rows)))[0]
            assert value == pytest.approx(repeated)


def test_more_classes_are_each_against_the_rest():
    generator = np.random.default_rng(2)
    probability, label = generator.dirichlet([1, 1, 1], 50), generator.integers(3, size=50)
    wanted = np.mean([brute_auc(probability[:, k], label == k) for k in range(3)])
    assert classification.auc(probability, label, once(50))[0] == pytest.approx(wanted)
    two = np.column_stack([1 - probability[:, 0], probability[:, 0]])
    wanted = brute_auc(probability[:, 0], label > 0)
    assert classification.auc(two, (label > 0).astype(int), once(50))[0] == pytest.approx(wanted)


def test_balanced_accuracy_weighs_classes_alike():
    label = np.array([0] * 90 + [1] * 10)
    always_first = np.tile([0.9, 0.1], (100, 1))
    assert classification.accuracy(always_first, label, once(100))[0] == pytest.approx(0.9)
    assert classification.balanced_accuracy(always_first, label, once(100))[0] == pytest.approx(0.5)


def test_a_sample_of_one_class_has_no_auc():
    probability, label = np.eye(2)[[0, 1, 1]], np.array([0, 1, 1])
    found = classification.auc(probability, label, np.array([[0, 1, 1], [1, 1, 0]]))
    assert np.isnan(found[0])
    assert found[1] == 1


def normal_scores(generator, count):
    """Probabilities whose AUC is Φ(1/√2) = 0.760, of two seeds."""
    label = generator.integers(2, size=count)
    shared = generator.normal(size=count) + label
    p = 1 / (1 + np.exp(-np.stack([shared, shared])))
    return np.stack([1 - p, p], axis=-1), label


def test_intervals_cover():
    covered = []
    for seed in range(150):
        probability, label = normal_scores(np.random.default_rng(seed), 120)
        drawn = classification.Bootstrap.resample(
            label, np.arange(120), 2, num_samples=200, level=0.9, seed=seed
        )
        found = drawn.interval(classification.auc, probability)
        assert found.low <= found.mean <= found.high
        covered.append(found.low <= 0.7602 <= found.high)
    # 0.9 ± three deviations of 150 draws.
    assert 0.82 < np.mean(covered) < 0.975


def test_cases_are_drawn_whole_and_few_are_less_certain():
    probability, label = normal_scores(np.random.default_rng(0), 200)
    width = {}
    for size in (1, 20):
        case = np.arange(200) // size
        drawn = classification.Bootstrap.resample(
            label, case, 2, num_samples=300, level=0.95, seed=0
        )
        assert (drawn.weights == drawn.weights[:, case * size]).all()
        assert (drawn.weights.reshape(300, -1, size)[:, :, 0].sum(axis=1) == 200 // size).all()
        # Everything in a case is alike.
        alike = probability[:, case * size]
        drawn = dataclasses.replace(drawn, label=label[case * size])
        found = drawn.interval(classification.accuracy, alike)
        width[size] = found.high - found.low
    assert width[20] > 2 * width[1]


def test_a_gain_is_paired():
    probability, label = normal_scores(np.random.default_rng(3), 100)
    drawn = classification.Bootstrap.resample(
        label, np.arange(100), 2, num_samples=300, level=0.95, seed=0
    )
    none = drawn.gain(classification.accuracy, probability, probability)
    assert (none.mean, none.low, none.high) == (0, 0, 0)
    perfect = np.stack([np.eye(2)[label]] * 2)
    gain = drawn.gain(classification.auc, perfect, probability)
    assert gain.mean == pytest.approx(1 - drawn.interval(classification.auc, probability).mean)
    assert gain.low > 0


@pytest.mark.parametrize(
    ("label", "message"), [([1, 1, 1], "got only class 1 in 3"), ([], "got none in 0 examples")]
)
def test_one_class_is_refused(label, message):
    label = np.array(label, int)
    with pytest.raises(
        ValueError, match=f"the test split must show two classes or more, {message}"
    ):
        classification.Bootstrap.resample(label, label, 1, num_samples=9, level=0.9, seed=0)
