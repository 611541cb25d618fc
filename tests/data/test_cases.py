"""Small cohorts: a side is never empty, nothing that was trained on is held out later, and names
that look like parts of one case are not taken for several."""

import hashlib
import itertools

import numpy as np
import pytest

from ssldiff_jax.core import schema
from ssldiff_jax.data import cases, plan

TCGA = r"TCGA-\w{2}-\w{4}"


def by_hash(names, fraction):
    """The rule of a case alone, from hashlib."""
    number = lambda name: int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 2**48
    return {name for name in names if number(name) < fraction}


def cohorts(count, size):
    generator = np.random.default_rng(size)
    return [[f"case {n}" for n in generator.choice(10**6, size, False)] for _ in range(count)]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("size", [2, 3, 5, 40])
def test_neither_side_is_empty_and_the_rest_is_as_each_name_says(size, fraction):
    empty = 0
    for names in cohorts(300, size):
        found, alone = cases.held_out(names, fraction), by_hash(names, fraction)
        assert 0 < len(found) < size
        empty += not alone
        if 0 < len(alone) < size:
            assert found == alone
        assert cases.held_out(reversed([*names, names[0]]), fraction) == found
    # What the rule is for: of five cases 59 % leave none at a tenth.
    assert abs(empty / 300 - (1 - fraction) ** size) < 0.1


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_as_cases_are_added_none_that_was_trained_on_is_held_out(fraction):
    for names in cohorts(100, 12):
        if len(by_hash(names[:2], fraction)) == 2:
            continue  # all would have been held out: the last of these may move
        trained = set()
        for size in range(2, 13):
            found = cases.held_out(names[:size], fraction)
            assert not trained & found
            trained = set(names[:size]) - found


def cohort(names, regex=TCGA, fraction=0.1):
    return cases.Cases.of(names, plan.HoldoutConfig("case", fraction, regex))


def test_what_is_moved_is_what_differs_from_the_name_alone():
    for names in cohorts(50, 3):
        found, alone = cohort(names, "case .*"), by_hash(names, 0.1)
        for name in names:
            side = "test" if name in found.held_out else "train"
            assert found.side(name) == side
            assert found.moved(name) == (None if (name in alone) == (side == "test") else side)


def test_two_slides_of_a_patient_that_no_pattern_finds_are_refused():
    names = [f"patient{p:03d}_{s}.svs" for p, s in itertools.product(range(500), (1, 2))]
    apart = lambda side: {n[:10] for n in names if side(n)} & {n[:10] for n in names if not side(n)}
    straddle = apart(lambda n: bool(by_hash([n.removesuffix(".svs")], 0.1)))
    assert len(straddle) > 50  # by their own names
    with pytest.raises(schema.ConfigError) as caught:
        cohort(names)
    told = str(caught.value)
    assert "patient000_1.svs and patient000_2.svs" in told
    assert "500 such cases" in told
    suggested = told.split("case_regex='")[-1].split("'")[0]
    found = cohort(names, suggested)
    assert not apart(lambda n: found.side(n) == "test")
    assert str(found).startswith("500 cases, ")
    assert "1000 of 1000 names match" in str(found)
    assert str(cohort(names, ".+")).startswith("1000 cases, ")


@pytest.mark.parametrize(
    ("names", "number"),
    [
        (["P12-A.svs", "P12-B.svs", "P13-A.svs"], 1),
        (["case_7_slide2.tif", "case_7_slide1.tif", "case_8.tif"], 1),
        (["patient_004_node_1.tif", "patient_004_node_4.tif"], 1),
        (["smith_1.svs", "smith_2.svs", "jones_1.svs", "jones_2.svs"], 2),
        (["P1 (1).svs", "P1 (2).svs"], 1),
        # These are counted, not parts of a case.
        ([f"{kind}_{n:03d}.tif" for kind in ("tumor", "normal") for n in range(9)], 0),
        (["CMU-1.svs", "CMU-2.svs", "CMU-3.svs"], 0),
        ([f"{c}/{c}_{n}.jpg" for c in ("Forest", "River") for n in range(30)], 0),
        (["slide01.svs", "slide02.svs"], 0),
        (["a.png", "b.png"], 0),
        (["P1_20x.svs", "P2_20x.svs"], 0),
    ],
)  # fmt: skip
def test_what_looks_like_parts_of_a_case(names, number):
    assert len(cases.look_alike(names)) == number


def test_names_of_a_pattern_and_others_are_told_apart():
    names = ["TCGA-A1-0001-01.svs", "TCGA-A1-0001-02.svs", "TCGA-A1-0002.svs", "other.svs"]
    found = cohort(names)
    assert str(found).startswith("3 cases, 1 of them held out; 3 of 4 names match")
    assert "1 without a match are a case each" in str(found)


@pytest.mark.parametrize("names", [["TCGA-A1-0001-01.svs", "TCGA-A1-0001-02.svs"], ["a.svs"]])
def test_one_case_cannot_be_on_two_sides(names):
    with pytest.raises(schema.ConfigError, match=r"got 1 .*holdout\.by=area"):
        cohort(names)


def test_a_pattern_must_be_one():
    with pytest.raises(ValueError, match=r"case_regex must be a regular expression, got '\('"):
        plan.HoldoutConfig("case", 0.1, "(")


def test_a_pattern_that_finds_nothing_names_no_case():
    assert plan.case_of("a/b.svs", "") == "b"
    assert plan.case_of("a/b.svs", "x*") == "b"
