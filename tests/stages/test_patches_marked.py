"""Tissue that a user marks decides records; what is found is written, and can be corrected."""

import csv
import json
import logging
import pathlib

import numpy as np
import pytest
import shapely
import tissue_like
from PIL import Image

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.data import slide_source
from ssldiff_jax.report import overviews
from ssldiff_jax.runs import launch
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages import table

HOSTILE = "=cmd()|'/c calc'!A0\"><script>alert(1)</script>"


def regions(path, **shapes):
    """A file of QuPath's, a feature for each class; `_` stands for a space."""
    features = [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(shape)),
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, shape in shapes.items()
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number, name in enumerate("ab"):
        Image.fromarray(tissue_like.pixels(number)).save(folder / f"{name}.png")
    return folder


def patches(workdir, slides, *changes, stages="patches"):
    c = tiny.get_config()
    c.stages, c.data.slides, c.data.engine.processes = stages, str(slides), 1
    c.data.mpp = c.data.patch_mpp = 0.5
    c.data.holdout.by = "area"
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    c.data.archive = str(workdir.parent / "archive")
    c.data.tissue.mpp = 4.0
    c.data.records.min_tissue = 0.5
    c.update_from_flattened_dict(dict(changes))
    return launch.launch(c.to_dict(), workdir, table.STAGES)


def places(workdir):
    """(slide, top, left) of all records, px of level 0."""
    return np.concatenate([
        np.load(workdir / f"patches/records/places-{split}.npy")[:, :3]
        for split in ("train", "test")
    ])  # fmt: skip


def lattice(workdir):
    facts = json.loads((workdir / "patches/records/manifest.json").read_text())["facts"]
    return facts["config"]["records"]["record_px"]


def quarantine(workdir):
    lines = (workdir / "patches/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return {pathlib.PurePath(line["slide"]).name: line["reason"] for line in map(json.loads, lines)}


def test_records_lie_where_polygons_say(tmp_path, slides):
    used = {"a": shapely.box(64, 32, 500, 768), "b": shapely.box(300, 100, 700, 768)}
    away = {"a": shapely.box(200, 300, 400, 640), "b": shapely.box(600, 0, 700, 500)}
    for name in used:
        regions(tmp_path / f"marks/{name}.geojson", Tumor=used[name], Fold=away[name])
    changes = {
        "data.annotations.files": str(tmp_path / "marks"),
        "data.annotations.use": ("Tumor",),
        "data.annotations.leave_out": ("Fold",),
    }
    patches(tmp_path / "all", slides)
    patches(tmp_path / "run", slides, *changes.items())
    px, found = lattice(tmp_path / "run"), places(tmp_path / "run")
    every = places(tmp_path / "all")
    for number, name in enumerate("ab"):
        exact = used[name] - away[name]
        tops, lefts = every[every[:, 0] == number, 1:].T
        squares = shapely.box(lefts, tops, lefts + px, tops + px)
        share = shapely.area(shapely.intersection(squares, exact)) / px**2
        here = {tuple(p) for p in found[found[:, 0] == number, 1:].tolist()}
        clear = np.abs(share - 0.5) > 0.03  # at half of a square either is right
        for top, left, part in zip(tops[clear], lefts[clear], share[clear], strict=True):
            assert ((top, left) in here) == (part > 0.5)
        assert 0 < len(here) < len(tops)


def test_a_file_that_changes_costs_its_slide_alone(tmp_path, slides):
    for name in "ab":
        regions(tmp_path / f"marks/{name}.geojson", Tumor=shapely.box(0, 0, 768, 768))
    changes = {"data.annotations.files": str(tmp_path / "marks"),
               "data.annotations.use": ("Tumor",)}.items()  # fmt: skip
    patches(tmp_path / "run", slides, *changes)
    first = {p.name for p in (tmp_path / "archive").iterdir()}
    regions(tmp_path / "marks/b.geojson", Tumor=shapely.box(0, 0, 768, 500))
    with pytest.raises(ValueError, match=r"inputs\.annotations"):
        patches(tmp_path / "run", slides, *changes)
    patches(tmp_path / "again", slides, *changes)
    second = {p.name for p in (tmp_path / "archive").iterdir()}
    assert len(second - first) == 1
    assert next(iter(second - first)).startswith("b")


def test_without_annotations_an_entry_is_called_as_before(tmp_path, slides):
    c = tiny.get_config()
    c.data.slides = str(slides)
    data = schema.build(run_config.RunConfig, c.to_dict()).data
    for task in slide_source.tasks(data, tmp_path):
        assert task.marks is None
        assert "annotations" not in slide_source.marked_by(data)
    before = [task.folder for task in slide_source.tasks(data, tmp_path)]
    for name in "ab":
        regions(tmp_path / f"marks/{name}.geojson", Tumor=shapely.box(0, 0, 9, 9))
    # Labels alone: their files are recorded, and no record is cut anew.
    c.data.annotations.files, c.data.annotations.classes = str(tmp_path / "marks"), ("Tumor",)
    data = schema.build(run_config.RunConfig, c.to_dict()).data
    assert [task.folder for task in slide_source.tasks(data, tmp_path)] == before
    assert len(slide_source.marked_by(data)["annotations"]) == 2


def test_one_bad_file_costs_its_slide_and_is_named(tmp_path, slides):
    regions(tmp_path / "marks/a.geojson", Tumor=shapely.box(0, 0, 768, 768))
    regions(tmp_path / "marks/b.geojson", **{HOSTILE: shapely.box(0, 0, 10, 10)})
    changes = {"data.annotations.files": str(tmp_path / "marks"),
               "data.annotations.use": ("Tumor",)}.items()  # fmt: skip
    patches(tmp_path / "run", slides, *changes)
    (reason,) = quarantine(tmp_path / "run").values()
    assert reason.startswith("expected polygons of class 'Tumor' on b.png in ")
    regions(tmp_path / "marks/b.geojson", Tumor=shapely.box(0, 0, 5000, 768))
    patches(tmp_path / "other", slides, *changes)
    (reason,) = quarantine(tmp_path / "other").values()
    assert "b.png (768 × 768 px)" in reason
    assert "feature 1 (class 'Tumor') at x 0…5000" in reason


def test_classes_with_scripts_and_formulas_are_escaped_in_the_page(tmp_path, slides):
    regions(tmp_path / "marks/a.geojson", Tumor=shapely.box(0, 0, 768, 768))
    regions(tmp_path / "marks/b.geojson", **{HOSTILE: shapely.box(0, 0, 10, 10)})
    patches(tmp_path / "run", slides, ("data.annotations.files", str(tmp_path / "marks")),
            ("data.annotations.use", ("Tumor",)))  # fmt: skip
    page = overviews.part(tmp_path / "run", tmp_path / "run/report", 0.5)
    assert "cmd()" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    # No cell of a table of numbers begins with a name that a user gave to a class.
    table_ = (tmp_path / "run/patches/slides.csv").read_text()
    assert "cmd()" not in table_


def test_tissue_that_was_found_is_written_and_given_back(tmp_path, slides):
    patches(tmp_path / "run", slides)
    folder = tmp_path / "run/patches/tissue"
    assert sorted(p.name for p in folder.iterdir()) == ["a.geojson", "b.geojson"]
    values = json.loads((folder / "a.geojson").read_text())
    assert values["features"][0]["properties"]["classification"]["name"] == "Tissue"
    patches(tmp_path / "again", slides, ("data.annotations.files", str(folder)),
            ("data.annotations.use", ("Tissue",)))  # fmt: skip
    np.testing.assert_array_equal(places(tmp_path / "run"), places(tmp_path / "again"))
    texts = [(tmp_path / f"{run}/patches/tissue/a.geojson").read_text() for run in ("run", "again")]
    assert texts[0] == texts[1]


def test_masks_beside_slides(tmp_path, slides):
    (tmp_path / "masks").mkdir()
    for name in "ab":
        mask = np.zeros((96, 96), np.uint8)
        mask[:, :48] = 1
        Image.fromarray(mask).save(tmp_path / f"masks/{name}.png")
    patches(tmp_path / "run", slides, ("data.annotations.masks", str(tmp_path / "masks")))
    found, px = places(tmp_path / "run"), lattice(tmp_path / "run")
    assert len(found)
    assert (found[:, 2] + px / 2 <= 384).all()


def test_patches_already_cut_have_no_regions(tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    px = tiny.get_config().data.records.record_px
    for number in range(8):
        Image.fromarray(tissue_like.pixels(number)[:px, :px]).save(folder / f"{number}.png")
    regions(tmp_path / "a.geojson", Tumor=shapely.box(0, 0, 9, 9))
    with pytest.raises(ValueError, match=r"config.data.annotations must come with slides"):
        patches(tmp_path / "run", f"folder:{folder}",
                ("data.annotations.files", str(tmp_path / "a.geojson")),
                ("data.annotations.use", ("*",)), ("data.holdout.case_regex", ".+"))  # fmt: skip


def test_slides_none_of_which_has_a_file(tmp_path, slides):
    regions(tmp_path / "marks/c.geojson", Tumor=shapely.box(0, 0, 9, 9))
    with pytest.raises(ValueError, match="named as the slides are, got none for 2 slides"):
        patches(tmp_path / "run", slides, ("data.annotations.files", str(tmp_path / "marks")))


def test_a_table_names_the_files_of_each_slide(tmp_path, slides):
    regions(tmp_path / "marks/first.geojson", Tumor=shapely.box(0, 0, 384, 768))
    mask = np.zeros((96, 96), np.uint8)
    mask[:, 48:] = 1
    Image.fromarray(mask).save(tmp_path / "marks/second.png")
    Image.fromarray(tissue_like.pixels(2)).save(slides / "c.png")
    table_ = tmp_path / "table.csv"
    lines = ["slide,annotations,mask", "a.png,marks/first.geojson,", "b.png,,marks/second.png",
             "c.png,marks/none.geojson,"]  # fmt: skip
    table_.write_text("\n".join(lines))
    changes = {"data.folder": str(slides), "data.holdout.by": "area",
               "data.annotations.leave_out": ("Tumor",)}.items()  # fmt: skip
    patches(tmp_path / "run", table_, *changes)
    found, px = places(tmp_path / "run"), lattice(tmp_path / "run")
    centres = found[:, 2] + px / 2
    assert set(found[:, 0].tolist()) == {0, 1}
    assert (centres >= 384).all()
    (reason,) = quarantine(tmp_path / "run").values()
    assert "none.geojson: no such file" in reason
    assert "row 4" in reason


POLYGONS = {"Tumor": shapely.box(0, 0, 500, 768), "Fold": shapely.box(600, 0, 700, 300)}


@pytest.mark.parametrize("how", ["column", "files"])
def test_polygons_that_no_key_takes_are_refused(tmp_path, slides, how):
    """They would count for nothing, and the tissue would be what is found."""
    regions(tmp_path / "marks/a.geojson", **POLYGONS)
    table_ = tmp_path / "table.csv"
    table_.write_text("slide,annotations\na.png,marks/a.geojson\nb.png,\n")
    named = ("data.annotations.files", str(tmp_path / "marks"))
    spec, change = {"column": (table_, ("data.folder", str(slides))), "files": (slides, named)}[how]
    with pytest.raises(ValueError, match="must say what the polygons of slides are for") as caught:
        patches(tmp_path / "run", spec, change)
    told = str(caught.value)
    assert "\n" not in told
    assert "config.data.annotations.use=('Tumor',)" in told
    assert f"for 1 slides, first {tmp_path}/marks/a.geojson with 2 polygons of classes " in told
    assert told.endswith("'Tumor' (1), 'Fold' (1)")
    assert not (tmp_path / "run").exists()
    (tmp_path / "marks/a.geojson").write_text("{")
    with pytest.raises(ValueError, match=r"use=\('\*',\)\".* first expected GeoJSON, got .*a.geoj"):
        patches(tmp_path / "run", spec, change)


@pytest.mark.parametrize("key", ["use", "classes"])
def test_how_many_polygons_count_is_said_once_and_the_table_names_them(
    tmp_path, slides, caplog, key
):
    caplog.set_level(logging.INFO)
    regions(tmp_path / "marks/a.geojson", **POLYGONS, Other=shapely.box(0, 0, 9, 9))
    regions(tmp_path / "marks/b.geojson", Tumor=POLYGONS["Tumor"])
    changes = {"data.annotations.files": str(tmp_path / "marks"),
               f"data.annotations.{key}": ("Tumor",)}  # fmt: skip
    if key == "use":
        changes["data.annotations.leave_out"] = ("Fold",)
    patches(tmp_path / "run", slides, *changes.items())
    told = [r.getMessage() for r in caplog.records if "of 2 slides" in r.getMessage()]
    told = [line for line in told if "polygons" in line]
    expected = {
        "use": "3 polygons count for 2 of 2 slides: 'Tumor' (2), 'Fold' (1)",
        "classes": "polygons of 2 of 2 slides are labels alone, and decide no tissue",
    }
    assert told == [expected[key]]
    rows = csv.DictReader((tmp_path / "run/patches/table.csv").open())
    assert [r["annotations"] for r in rows] == [f"{tmp_path}/marks/{n}.geojson" for n in "ab"]
