import dataclasses

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data.annotations import case_tables
from ssldiff_jax.runs import region_labels
from ssldiff_jax.runs.config import run as run_config


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return make


def test_a_case_may_have_several_labels_or_none(write):
    found = case_tables.Labels.read(write("case,label\na,lum\na,grade 3\nb,basal\nc,\n"))
    assert found.names == ("basal", "grade 3", "lum")
    np.testing.assert_array_equal(found.values("a"), [0, 1, 1])
    assert np.isnan(found.values("c")).all()
    assert np.isnan(found.values("unknown")).all()


def test_numbers_are_standardised_and_missing_ones_stay_missing(write):
    table = write("case,TP53,MYC\na,1,5\nb,3,\nc,5,7\n")
    found = case_tables.Numbers.read(table, ("a", "b", "c"))
    assert found.names == ("TP53", "MYC")
    np.testing.assert_allclose(found.mean, [3, 6])
    values = np.stack([found.values(case) for case in "abc"])
    np.testing.assert_allclose(np.nanmean(values, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(values, axis=0), 1, atol=1e-6)
    assert np.isnan(found.values("b")[1])
    assert np.isnan(found.values("d")).all()


def test_held_out_cases_do_not_standardise_numbers(write):
    """The deviation of {1, 3} is 1, whatever the case that is held out has."""
    path = write("case,TP53\na,1\nb,3\nout,1000\n")
    found = case_tables.Numbers.read(path, {"a", "b", "of no row"})
    assert (found.mean, found.std) == ([2], [1])
    assert [found.values(case).item() for case in ("a", "b", "out")] == [-1, 1, 998]
    with pytest.raises(case_tables.TableError, match=r"of training cases .* none in \['TP53'\]"):
        case_tables.Numbers.read(path, {"of no row"})


def test_a_run_standardises_numbers_by_the_cases_of_its_training_records(write):
    """Slides 0 to 3 are of the cases a, b and c; only 0, 1 and 3 have training records."""
    numbers = write("case,TP53\nTCGA-AA-000a,1\nTCGA-AA-000b,3\nTCGA-AA-000c,1000\n")
    cases = dict(enumerate(f"TCGA-AA-000{case}" for case in "abca"))
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    asked = dataclasses.replace(config.prior.conditions, measure="none", numbers=numbers)
    told = region_labels.RegionLabels.read(asked, config.data, cases, [0, 1, 3])
    assert told.scales == {"mean": [2], "std": [1]}


def test_any_caption_of_a_case_is_drawn(write):
    found = case_tables.Captions.read(write('case,caption\na,"one, two"\na,three\n'))
    drawn = {found.choose("a", np.random.default_rng(i)) for i in range(20)}
    assert drawn == {"one, two", "three"}
    assert found.choose("b", np.random.default_rng(0)) == ""


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("name,label\na,x\n", case_tables.Labels, "columns case, label, got 1 rows and name"),
        ("case,label\n", case_tables.Labels, "got 0 rows"),
        ("case,label\na,x,y\n", case_tables.Labels, "row 2 must have 2 values"),
        ("case,g\na,tall\n", case_tables.Numbers, "row 2 must hold numbers"),
        ("case,g\na,1\na,2\n", case_tables.Numbers, "case 'a' must have one row"),
        ("case,g,h\na,1,\nb,2,\n", case_tables.Numbers, r"got none in \['h'\]"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(write, text, read, message):
    path = write(text)
    of = ("abc",) if read is case_tables.Numbers else ()
    with pytest.raises(case_tables.TableError, match=message) as error:
        read.read(path, *of)
    assert path in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(case_tables.TableError, match="no such file"):
        case_tables.Labels.read(str(tmp_path / "none.csv"))
