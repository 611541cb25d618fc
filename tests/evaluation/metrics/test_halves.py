import numpy as np
import pytest

from ssldiff_jax.core import moments
from ssldiff_jax.evaluation.metrics import frechet, halves, summary


@pytest.mark.parametrize(
    ("cases", "sizes", "by"),
    [
        ("aaaabbbcc", (4, 5), "by case: 1 and 2 cases"),
        ("aabb", (2, 2), "by case: 1 and 1 cases"),
        ("abcabcabc", (6, 3), "by case: 2 and 1 cases"),
        ("a" * 9 + "bc", (9, 2), "by case: 1 and 2 cases"),
        ("aaaaa", (2, 3), "by area: halves of one case"),
        ("abcdef", (3, 3), "by order: no cases are known"),
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
    found = summary.figures(generator.normal(size=(300, 4)), real, cases=of_slides)
    apart = found["frechet_of_real_halves"]
    assert apart["split_by"] == "by case: 1 and 1 cases"
    assert apart["low"] <= 36 <= apart["high"]
    assert frechet.frechet_distance(real[::2], real[1::2]) < 1
    assert apart["counts"] == (200, 200)
    with pytest.raises(ValueError, match="a case for each of 400 vectors, got 3"):
        summary.figures(real, real, cases=["a", "b", "c"])


def test_figures_of_few_vectors_say_so():
    """As the demo's: 64 patches, features of 96 numbers."""
    drawn, real = np.random.default_rng(0).normal(size=(2, 64, 96))
    found = summary.figures(drawn, real, cases=["one"] * 64, paired=True)
    few = "too few: 64 vectors of 96 numbers, 203 needed"
    assert found["frechet"]["interval"] == few
    assert found["frechet"]["low"] is found["frechet"]["corrected"] is None
    assert found["frechet_of_real_halves"]["interval"].startswith("too few: 32 vectors of 96")
    assert found["precision_recall"]["recall"]["interval"].startswith("too few: 64 vectors")
    assert found["kid"]["low"] <= found["kid"]["corrected"] <= found["kid"]["high"]
    published = moments.Moments.of(np.random.default_rng(1).normal(size=(500, 96)))
    found = summary.figures(drawn, real, published, cases=["one"] * 64)
    assert found["frechet"]["interval"] == few


@pytest.mark.parametrize(("count", "cases"), [(6, "aaaaab"), (100, "a" * 99 + "b")])
def test_a_half_of_one_vector_has_no_distance_but_a_reason(count, cases):
    drawn, real = np.random.default_rng(0).normal(size=(2, count, 2))
    found = summary.figures(drawn, real, cases=list(cases), paired=True)
    apart = found["frechet_of_real_halves"]
    assert apart["uncorrected"] is apart["corrected"] is apart["low"] is None
    assert apart["interval"] == "too few: 1 vectors of 2 numbers, 5 needed"
    assert apart["split_by"] == "by case: 1 and 1 cases"
    assert found["frechet"]["uncorrected"] > 0


@pytest.mark.parametrize("value", [0.0, 0.3, -1e4])
def test_vectors_that_are_all_the_same_have_a_reason_in_place_of_a_perfect_figure(value):
    """An extractor that sees nothing is 0 apart from anything, and precise."""
    same = np.full((300, 4), value, np.float32)
    found = summary.figures(same, same.copy(), cases=["a", "b"] * 150, paired=True)
    for figure in (found["frechet"], found["kid"], found["frechet_of_real_halves"]):
        assert figure["uncorrected"] is figure["corrected"] is figure["high"] is None
        assert figure["interval"].startswith("none: all ")
    for name in ("precision", "recall", "density", "coverage"):
        assert found["precision_recall"][name]["value"] is None
        assert (
            found["precision_recall"][name]["interval"] == "none: all 300 real vectors are the same"
        )
    # A generator that draws one image again and again is told so by numbers.
    real = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    found = summary.figures(same, real, cases=["a", "b"] * 150)
    assert found["frechet"]["low"] > 1
    assert found["precision_recall"]["recall"]["value"] <= 0.01


@pytest.mark.parametrize("scale", [1e19, -1e30])
def test_vectors_too_long_for_their_squares_are_refused(scale):
    drawn = np.abs(np.random.default_rng(0).normal(size=(60, 4))).astype(np.float32)
    with pytest.raises(ValueError, match=r"generated vectors of numbers up to 5e\+18 in float32"):
        summary.figures(drawn * np.float32(scale), drawn, cases=["a"] * 60)


@pytest.mark.parametrize("times", [2, 4])
@pytest.mark.parametrize("order", ["beside", "apart"])
def test_copies_of_vectors_leave_no_interval(times, order):
    """Taken as so many vectors, intervals would be beside the distance: 0.48 in closed form."""
    generator = np.random.default_rng(0)
    drawn, real = generator.normal(size=(2, 120, 12))
    copied = np.repeat(1.2 * drawn[: 120 // times], times, axis=0)
    copied = copied if order == "beside" else generator.permutation(copied)
    cases = ["a", "b"] * 60
    found = summary.figures(copied, real, cases=cases)
    said = f"too few: 120 vectors, {120 - 120 // times} of them copies of others"
    assert found["frechet"]["interval"] == found["kid"]["interval"] == said
    assert found["frechet"]["low"] is None
    assert found["frechet"]["uncorrected"] == pytest.approx(frechet.frechet_distance(copied, real))
    assert found["frechet_of_real_halves"]["low"] is not None
    found = summary.figures(real, copied, cases=cases)["frechet_of_real_halves"]
    assert found["interval"] == said


def test_blank_images_and_a_copy_or_two_are_no_reason():
    features = np.random.default_rng(0).normal(size=(200, 3))
    features[50:80] = 7  # a value of the population
    features[100:110] = features[120:130]
    assert summary.repeated(features) is None
    features[:1] = features[131]
    assert summary.repeated(features).startswith("200 vectors, 11 of them copies")
