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


SLIDES = {"a.svs": "p1", "b.svs": "p1", "c.ome.tif": "p2", "é.svs": "p3"}


def by_slide():
    return case_tables.cases_by_slide(SLIDES.items())


@pytest.mark.parametrize(
    "text",
    [
        "case,label\np1,x\np1,y\np2,x\n",
        "case_id,slide_id,label\np1,a,x\np1,b,y\np2,c.ome,x\n",  # CLAM's data set
        "slide_id,label\na,x\nb,y\nc.ome,x\n",
        "wsi,label,mpp\na.svs,x,0.5\nb.svs,y,0.5\nc.ome.tif,x,\n",  # TRIDENT's list
        "slide;label\n/data/a.svs;x\nsub/b.svs;y\ngs://bucket/c.ome.tif;x\n",
        "\ufeffsep=\t\nSlide\tLabel\na\tx\n\nb\ty\nc.ome.tif\tx\n",
    ],
)
def test_labels_may_stand_in_the_table_of_the_slides(write, text):
    found = case_tables.Labels.read(write(text), by_slide)
    assert found.names == ("x", "y")
    np.testing.assert_array_equal(found.values("p1"), [1, 1])
    np.testing.assert_array_equal(found.values("p2"), [1, 0])
    assert np.isnan(found.values("p3")).all()


def test_slides_that_a_run_has_not_are_no_cases(write):
    found = case_tables.Labels.read(write("slide,label\na,x\np2,y\n"), by_slide)
    assert np.isnan(found.values("p2")).all()  # a slide of that name is not the case
    np.testing.assert_array_equal(found.values("p1"), [1, 0])


def test_accents_of_cases_and_slides_are_one_however_they_are_kept(write):
    found = case_tables.Labels.read(write("slide,label\ne\u0301,x\n"), by_slide)
    np.testing.assert_array_equal(found.values("p3"), [1])
    found = case_tables.Labels.read(write("case,label\ncafe\u0301,x\n"))
    np.testing.assert_array_equal(found.values("caf\u00e9"), [1])
    numbers = case_tables.Numbers.read(write("case,v\ncafé,1\nb,3\n"), {"cafe\u0301", "b"})
    assert numbers.values("cafe\u0301").item() == -1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,label\nx,l\na,l\n", r"row 2 must name one slide, got x, .* the cases p1, p2"),
        ("slide,wsi,label\na,a,l\n", r"one column for the slide, got slide and wsi"),
        ("case,case_id,label\na,a,l\n", r"one column for the case, got case and case_id"),
        ("slide,lable\na,l\n", r"the columns case, label, got 1 rows and slide, lable"),
        ("slide,label\na\n", r"row 2 must have 2 values"),
        ("slide,label\n", r"must have rows"),
        ("slide,label\n,l\n", r"row 2 must name a case, got ''"),
        ("case,slide,label\n,a,l\n", r"row 2 must name a case, got ''"),
        ("", r"got 0 rows and no columns"),
    ],
)
def test_tables_that_cannot_be_labels(write, text, message):
    two = lambda: case_tables.cases_by_slide([("x.svs", "p1"), ("x.tif", "p2"), ("a.svs", "p1")])
    with pytest.raises(case_tables.TableError, match=message) as caught:
        case_tables.Labels.read(write(text), two)
    assert "table.csv" in str(caught.value)


def test_a_table_of_slides_needs_to_be_told_their_cases(write):
    path = write("slide,label\na,x\n")
    with pytest.raises(case_tables.TableError, match="the columns case, label"):
        case_tables.Labels.read(path)
    case_tables.require_columns(path, ("label",))


def test_a_run_takes_labels_by_slide(write):
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    labels = write("slide,label\na,x\nb.svs,y\n")
    asked = dataclasses.replace(config.prior.conditions, measure="none", labels=labels)
    names = lambda: {0: "a.svs", 1: "b.svs", 2: "c.svs", 7: "gone.svs"}
    told = region_labels.RegionLabels.read(
        asked, config.data, {0: "p1", 1: "p2", 2: "p1"}, [0], names
    )
    np.testing.assert_array_equal(told.tables.labels.values("p2"), [0, 1])
    np.testing.assert_array_equal(told.tables.labels.values("p1"), [1, 0])
    other = dataclasses.replace(asked, labels=write("slide,label\nz,x\n"))
    with pytest.raises(case_tables.TableError, match="must have rows for cases of the slides"):
        region_labels.RegionLabels.read(other, config.data, {0: "p1", 1: "p2"}, [0], names)
