import numpy as np
import pytest

from ssldiff_jax.core import moments
from ssldiff_jax.evaluation import compared, distances, halves


@pytest.mark.parametrize(
    ("cases", "sizes", "by"),
    [
        ("aaaabbbcc", (4, 5), "by case: 1 and 2 cases"),
        ("aabb", (2, 2), "by case: 1 and 1 cases"),
        ("abcabcabc", (6, 3), "by case: 2 and 1 cases"),
        ("a" * 9 + "bc", (9, 2), "by case: 1 and 2 cases"),
        ("aaaaa", (2, 3), "by area: halves of one case"),
        ("abcdef", (3, 3), "by order: no cases are told"),
    ],
)
def test_a_case_is_in_one_half(cases, sizes, by):
    found = halves.Halves.of_cases(list(cases))
    assert (len(found.first), len(found.second), found.by) == (*sizes, by)
    both = np.concatenate([found.first, found.second])
    assert sorted(both.tolist()) == list(range(len(cases)))
    if by.startswith("by case"):
        assert not {cases[i] for i in found.first} & {cases[i] for i in found.second}
    else:
        assert both.tolist() == list(range(len(cases)))


def test_one_vector_has_no_halves():
    with pytest.raises(ValueError, match="at least 2 vectors to halve, got 1"):
        halves.Halves.of_cases(["a"])


def test_cases_are_as_far_apart_as_they_are():
    """Two slides 3 apart in each of 4 numbers: every second vector would tell of nothing."""
    generator = np.random.default_rng(0)
    real = generator.normal(size=(400, 4))
    real[200:] += 3
    of_slides = [f"slide {i // 200}" for i in range(400)]
    found = compared.figures(generator.normal(size=(300, 4)), real, cases=of_slides)
    apart = found["frechet_real_against_real"]
    assert apart["parted"] == "by case: 1 and 1 cases"
    assert apart["low"] <= 36 <= apart["high"]
    assert distances.frechet_distance(real[::2], real[1::2]) < 1
    assert apart["counts"] == (200, 200)
    with pytest.raises(ValueError, match="a case for each of 400 vectors, got 3"):
        compared.figures(real, real, cases=["a", "b", "c"])


def test_figures_of_few_vectors_say_so():
    """As the demo's: 64 patches, features of 96 numbers."""
    drawn, real = np.random.default_rng(0).normal(size=(2, 64, 96))
    found = compared.figures(drawn, real, cases=["one"] * 64, paired=True)
    few = "too few: 64 vectors of 96 numbers, 203 needed"
    assert found["frechet"]["interval"] == few
    assert found["frechet"]["low"] is found["frechet"]["corrected"] is None
    assert found["frechet_real_against_real"]["interval"].startswith("too few: 32 vectors of 96")
    assert found["fidelity"]["recall"]["interval"].startswith("too few: 64 vectors")
    assert found["kid"]["low"] <= found["kid"]["corrected"] <= found["kid"]["high"]
    published = moments.Moments.of(np.random.default_rng(1).normal(size=(500, 96)))
    found = compared.figures(drawn, real, published, cases=["one"] * 64)
    assert found["frechet"]["interval"] == few
