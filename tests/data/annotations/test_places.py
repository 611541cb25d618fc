"""Which file of a user's is of which slide."""

import re

import pytest
import small_configs

from ssldiff_jax.core import schema

NAMES = ["a.svs", "b.ome.tif", "c.tif"]


def section(**changes):
    return small_configs.section("data.annotations", **changes)


@pytest.fixture
def folder(tmp_path):
    def folder(*names):
        for name in names:
            (tmp_path / name).write_text("{}")
        return tmp_path

    return folder


def found(config, names=NAMES):
    marks = config.of_slides(names)
    return [m and (m.regions.rpartition("/")[2], m.mask.rpartition("/")[2]) for m in marks]


@pytest.mark.parametrize("glob", ["", "/*", "/*.geojson*"])
def test_files_are_found_by_the_slides_names(folder, glob):
    path = folder("a.geojson", "b.geojson.gz", "c.tif.geojson", "other.geojson", "notes.txt")
    assert found(section(files=f"{path}{glob}", leave_out=("Fold",))) == [
        ("a.geojson", ""), ("b.geojson.gz", ""), ("c.tif.geojson", ""),
    ]  # fmt: skip


def test_masks_too_and_a_slide_without_any(folder):
    path = folder("a.geojson", "b.png")
    config = section(files=str(path), masks=str(path), leave_out=("Fold",))
    assert found(config) == [("a.geojson", ""), ("", "b.png"), None]
    # With classes that are tissue it has none.
    marks = section(files=str(path), use=("Tumor",)).of_slides(NAMES)
    assert [m.regions == "" for m in marks] == [False, True, True]


def test_a_file_of_the_ground_is_of_all_scenes(folder):
    path = folder("layer.geojson") / "layer.geojson"
    marks = section(files=str(path), use=("*",)).of_slides(NAMES)
    assert {m.regions for m in marks} == {str(path)}
    assert all(m.is_shared for m in marks)
    (one,) = section(files=str(path), use=("*",)).of_slides(NAMES[:1])
    assert not one.is_shared


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (["z.geojson", "y.geojson"], {"files": "."},
         r"files must have files named as the slides are, got none for 3 slides, such as 'a.svs', "
         r"'b.ome.tif', 'c.tif'; it has 'y.geojson', 'z.geojson'"),
        (["a.geojson", "a.json"], {"files": "."},
         "one file for each slide, got .*a.geojson.*a.json.* for 1 slides called 'a'"),
        ([], {"files": "."}, r"must name a file, a glob or a folder with files that end in .*geoj"),
        (["z.png"], {"masks": "z.png"}, "masks must have files named as the slides are"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_matched(folder, names, changes, message):
    path = folder(*names)
    changes = {key: str(path / value) for key, value in changes.items()}
    with pytest.raises(schema.ConfigError, match=message):
        section(**changes).of_slides(NAMES)


def test_two_slides_of_one_name(folder):
    config = section(files=str(folder("a.geojson", "b.geojson")))
    with pytest.raises(schema.ConfigError, match=r"for 2 slides called 'a'"):
        config.of_slides(["a.svs", "a.tif", "b.svs"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("A", "unmarked")}, "names that differ, and none of them 'unmarked'"),
        ({"files": "x", "use": ("A", "B"), "leave_out": ("B",)}, "no class in common, got 'B'"),
    ],
)
def test_keys_that_contradict_each_other(changes, message):
    with pytest.raises(schema.ConfigError, match=re.escape(message)):
        section(**changes)


def test_classes_need_files_or_a_table_that_may_name_them():
    annotations = {**section().__dict__, "use": ("Tumor",)}
    with pytest.raises(schema.ConfigError, match=r"must come with config.data.annotations.files"):
        small_configs.section("data", slides="a.svs", annotations=annotations)
    assert small_configs.section("data", slides="a.csv", annotations=annotations).is_table


def test_what_a_table_says_wins_over_names(folder):
    path = folder("a.geojson", "c.geojson", "own.geojson", "own.png")
    own = [("", ""), ("own.geojson", "own.png"), ("own.geojson", "")]
    marks = section(files=str(path), leave_out=("Fold",)).of_slides(NAMES, own)
    names = [(m.regions.rpartition("/")[2], m.mask) for m in marks]
    assert names == [("a.geojson", ""), ("own.geojson", "own.png"), ("own.geojson", "")]
    alone = section(leave_out=("Fold",)).of_slides(NAMES, own)
    assert [bool(m) for m in alone] == [False, True, True]


def test_of_slides_of_one_name_those_that_a_table_tells_apart_are_no_question(folder):
    path = folder("a.geojson", "a.png", "b.geojson")
    config = section(files=str(path), masks=str(path), leave_out=("Fold",))
    names = ["a.svs", "a.svs", "b.svs"]  # of two folders
    both = [("x.geojson", "x.png"), ("y.geojson", "y.png"), ("", "")]
    marks = config.of_slides(names, both)
    found = [(m.regions.rpartition("/")[2], m.mask) for m in marks]
    assert found == [("x.geojson", "x.png"), ("y.geojson", "y.png"), ("b.geojson", "")]
    # One is told: the file of that name is the other's.
    marks = config.of_slides(names, [("x.geojson", "x.png"), ("", ""), ("", "")])
    assert [m.regions.rpartition("/")[2] for m in marks] == ["x.geojson", "a.geojson", "b.geojson"]
    told = [("x.geojson", ""), ("y.geojson", ""), ("", "")]
    with pytest.raises(schema.ConfigError, match=r"for 2 slides called 'a': .* column mask"):
        config.of_slides(names, told)
    with pytest.raises(schema.ConfigError, match=r"for 2 slides called 'a': .* column annotations"):
        config.of_slides(names)


@pytest.mark.parametrize(("slide", "file"), [("é", "e\u0301"), ("e\u0301", "é"), ("é", "é")])
def test_accents_are_one_however_they_are_kept(folder, slide, file):
    path = folder(f"{file}.geojson")
    (marks,) = section(files=str(path), use=("*",)).of_slides([f"{slide}.svs"])
    assert marks.regions == str(path / f"{file}.geojson")
