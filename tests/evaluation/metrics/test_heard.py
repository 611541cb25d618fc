import itertools

import numpy as np
import pytest

from ssldiff_jax.evaluation.metrics import heard


def values(count, seed=0):
    """Coarse, so that some are equal."""
    return np.round(np.random.default_rng(seed).random((count, 4, 2)), 1)


def by_hand(requested, shown, i):
    """All sets of nine other conditions, each with the image's own."""
    scale = np.tile(requested.std(axis=(0, 1)), 4)
    apart = ((shown[i] - requested).reshape(len(requested), -1) / scale) ** 2
    apart, others = apart.sum(axis=1), [j for j in range(len(requested)) if j != i]
    wins = []
    for chosen in itertools.combinations(others, min(9, len(others))):
        best = min(apart[list(chosen)])
        if np.isclose(best, apart[i], atol=1e-9):
            wins.append(1 / (1 + np.isclose(apart[list(chosen)], best, atol=1e-9).sum()))
        else:
            wins.append(float(apart[i] < best))
    return np.mean(wins)


@pytest.mark.parametrize("count", [4, 10, 13])
def test_retrieval_is_that_of_all_choices_of_nine_others(count):
    requested = values(count)
    shown = requested + np.random.default_rng(1).normal(0, 0.4, requested.shape)
    requested[1] = requested[2] = requested[3]  # equally near
    expected = [by_hand(requested, shown, i) for i in range(count)]
    np.testing.assert_allclose(heard.retrieval(requested, shown), expected, atol=1e-9)


def test_what_shows_its_condition_is_heard_and_what_shows_anothers_is_chance():
    requested = values(300)
    whole = heard.heard("ab", requested, requested)
    assert whole.retrieval.value == 1
    assert [row.value for row in whole.classes.values()] == pytest.approx([1, 1])
    other = heard.heard("ab", requested, values(300, seed=7))
    assert other.chance == 0.1
    for figure, chance in ((other.retrieval, 0.1), *((row, 0) for row in other.classes.values())):
        assert figure.low < chance < figure.high
        assert figure.high - figure.low < 0.25


def test_one_condition_for_all_is_chance_and_has_no_correlation():
    same = np.full((40, 4, 2), 0.5)
    found = heard.heard("ab", same, values(40))
    assert found.retrieval.value == pytest.approx(0.1)
    assert found.classes["a"].value is None


def test_correlations_are_numpys_over_all_places():
    requested, shown = values(50), 0.3 * values(50) + values(50, seed=3)
    found = heard.heard("ab", requested, shown)
    for k, row in enumerate(found.classes.values()):
        expected = np.corrcoef(requested[..., k].ravel(), shown[..., k].ravel())[0, 1]
        assert row.value == pytest.approx(expected)
        assert row.low < expected < row.high
    assert set(found.rows()) == {"a", "b", heard.RETRIEVAL}


def test_fewer_images_than_choices_have_another_chance():
    assert heard.heard("ab", values(4), values(4, seed=1)).chance == 0.25


def test_a_place_where_a_class_is_all_but_never_asked_for_decides_nothing():
    """A few stray pixels there are asked of one image, and more are found in all."""
    requested = values(64)
    requested[..., 1] = 0
    requested[5, 2, 1] = 0.001
    requested[7, 0, 1] = 0.3
    shown = requested.copy()
    shown[:, 2, 1] += 0.1
    assert heard.retrieval(requested, shown).mean() > 0.95


def test_what_is_not_asked_is_left_out():
    requested, shown = values(60), values(60)
    shown[30:] = 0.9  # of what nobody asked
    requested[30:, :, 0] = np.nan
    found = heard.heard("ab", requested, shown)
    assert found.classes["a"].value == pytest.approx(1)
    assert found.classes["b"].value < 0.9
    assert np.isfinite(found.retrieval.value)


def test_of_thousands_of_values_the_mean_is_shown():
    requested = np.random.default_rng(0).random((40, 1, 300))
    found = heard.heard([str(k) for k in range(300)], requested, requested)
    assert set(found.rows()) == {"mean", heard.RETRIEVAL}
    assert found.rows()["mean"].value == pytest.approx(1)
