import numpy as np
import pytest

from ssldiff_jax.stages import case_tables


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
    found = case_tables.Numbers.read(write("case,TP53,MYC\na,1,5\nb,3,\nc,5,7\n"))
    assert found.names == ("TP53", "MYC")
    np.testing.assert_allclose(found.mean, [3, 6])
    values = np.stack([found.values(case) for case in "abc"])
    np.testing.assert_allclose(np.nanmean(values, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(values, axis=0), 1, atol=1e-6)
    assert np.isnan(found.values("b")[1])
    assert np.isnan(found.values("d")).all()


def test_any_caption_of_a_case_is_drawn(write):
    found = case_tables.Captions.read(write('case,caption\na,"one, two"\na,three\n'))
    drawn = {found.draw("a", np.random.default_rng(i)) for i in range(20)}
    assert drawn == {"one, two", "three"}
    assert found.draw("b", np.random.default_rng(0)) == ""


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
    with pytest.raises(case_tables.TableError, match=message) as error:
        read.read(path)
    assert path in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(case_tables.TableError, match="no such file"):
        case_tables.Labels.read(str(tmp_path / "none.csv"))
