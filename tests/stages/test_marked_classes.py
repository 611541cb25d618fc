"""Classes that a user marks as those of an evaluation and of a study, against areas by shapely."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import shapely
import tissue_like
from PIL import Image

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs import artifacts, launch, marked_classes, patch_samples, pixel_labels
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.stages import table
from ssldiff_jax.stages.evaluate import confusion
from ssldiff_jax.stages.tools.study import bags, classes

NAMES = ("Tumor", "Stroma", "unmarked")
SHAPES = {
    "a": (shapely.Point(300, 300).buffer(260), shapely.box(420, 0, 768, 768)),
    "b": (shapely.box(0, 0, 768, 330), shapely.Point(500, 560).buffer(240)),
}


def exact(slide, square):
    """Areas of the classes in a square of level 0; of those that overlap the last one counts."""
    tumor, stroma = SHAPES[slide]
    box = shapely.box(square.left, square.top, square.left + square.width,
                      square.top + square.height)  # fmt: skip
    parts = (tumor - stroma).intersection(box).area, stroma.intersection(box).area
    return np.array([*parts, box.area - sum(parts)]) / box.area


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Records of two slides with polygons, a half of each held out."""
    folder = tmp_path_factory.mktemp("marked")
    for number, (name, shapes) in enumerate(SHAPES.items()):
        Image.fromarray(tissue_like.pixels(number)).save(folder / f"{name}.png")
        features = [
            {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)),
             "properties": {"objectType": "annotation", "classification": {"name": kind}}}
            for kind, shape in zip(NAMES, shapes, strict=False)
        ]  # fmt: skip
        (folder / f"{name}.geojson").write_text(json.dumps(features))
    c = tiny.get_config()
    c.stages, c.data.slides, c.data.engine.processes = "patches", str(folder / "*.png"), 1
    c.data.mpp = c.data.patch_mpp = 0.5
    c.data.holdout.by = "area"
    c.data.regions.rows = c.data.regions.cols = c.data.regions.count = 1
    c.data.annotations.files = str(folder / "*.geojson")
    c.data.annotations.classes = NAMES[:2]
    c.evaluate.classes = c.study.patches.labels = c.study.bags.measure = "annotations"
    c.study.bags.update({"shows": "Stroma", "side": 2, "count": 30, "count_test": 20})
    launch.launch(c.to_dict(), folder / "run", table.STAGES)
    config = schema.build(run_config.RunConfig, c.to_dict())
    return artifacts.Artifacts(config, folders.Folders(folder / "run"))


def most(run, square):
    """The class over most of a square; None where two are nearly as large."""
    parts = exact(run.slide_names[square.slide].partition(".")[0], square)
    first, second = np.sort(parts)[::-1][:2]
    return NAMES[parts.argmax()] if first - second > 0.01 else None


def test_a_confusion_matrix_is_of_the_classes_over_most_of_a_patch(run):
    sides = [patch_samples.Sample.at_most(run.patches(split), 0) for split in ("test", "train")]
    names = lambda: run.slide_names
    made = confusion.ClassConfusion.of_run(run.config.evaluate, run.config.data, *sides, names)
    assert made.names == NAMES
    for sample, labels in zip(sides, (made.truth, made.labels), strict=True):
        expected = [most(run, sample.patch(i)[0]) for i in range(len(sample))]
        assert sum(name is not None for name in expected) > 0.9 * len(expected)
        pairs = [(e, got) for e, got in zip(expected, labels, strict=True) if e is not None]
        assert [got for _, got in pairs] == [e for e, _ in pairs]
        assert len(set(labels)) >= 2
    # A judge that sees the class itself confuses none.
    one_hot = lambda labels: np.eye(3)[[NAMES.index(name) for name in labels]] + 1e-3
    features = {"judge": (one_hot(made.truth), one_hot(made.truth))}
    facts = made.confusion(features, one_hot(made.labels))
    counts = [list(made.truth).count(name) for name in NAMES]
    assert facts["counts"] == np.diag(counts).tolist()
    assert facts["real"]["accuracy"] == 1


def test_patches_of_a_study_have_the_classes_of_the_polygons(run):
    patches = classes.Patches.some(run.patches("train"), 0, 0)
    made = classes.Classes.of_run(run, patches)
    assert (made.all, made.of_pixels) == (NAMES, None)
    for (square, _), name in zip(patches.read, made.of(patches), strict=True):
        assert most(run, square) in (name, None)


def test_bags_of_a_study_show_the_part_of_a_class(run):
    section, source = run.config.study.bags, run.patches("train")
    measure = pixel_labels.PixelLabels("annotations", run.config.data, lambda: run.slide_names)
    found = bags._regions(source, section, measure, 0)
    assert len(found) == 30
    for bag in found:
        # What reads a bag's cells knows its place.
        _, square, _ = bag.read.args
        expected = exact(run.slide_names[square.slide].partition(".")[0], square)[1]
        assert bag.shows == pytest.approx(expected, abs=0.01)
    assert len({round(bag.shows, 3) for bag in found}) > 5


def test_bags_of_slides_have_the_labels_of_a_table_of_slides(run, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("slide_id;label\nb;pale\nsub/a.png;dark\n")
    section = dataclasses.replace(run.config.study.bags, of="slides", labels=str(path))
    found = bags._slides(run.patches("train"), section, 0)
    assert sorted((bag.case, bag.name) for bag in found) == [("a", "dark"), ("b", "pale")]


def config_of(**changes):
    c = tiny.get_config()
    c.update_from_flattened_dict({"data.slides": "a.svs", **changes})
    return schema.build(run_config.RunConfig, c.to_dict())


@pytest.mark.parametrize(
    ("key", "stage"),
    [
        ("prior.conditions.measure", "grids"),
        ("evaluate.classes", "evaluate"),
        ("study.patches.labels", "study"),
        ("study.bags.measure", "study"),
    ],
)
def test_keys_that_ask_for_classes_which_none_named_are_told_at_once(key, stage):
    config = config_of(**{key: "annotations"})
    (line,) = marked_classes.missing(config, (stage,))
    assert line == (
        f"config.{key}=annotations must come with config.data.annotations.files and classes, got "
        "files='', classes=()"
    )
    assert not list(marked_classes.missing(config, ("patches",)))
    named = {"data.annotations.files": "x", "data.annotations.classes": ("Tumor",)}
    named |= {"study.bags.shows": "Tumor"} if "bags" in key else {}
    assert not list(marked_classes.missing(config_of(**{key: "annotations"}, **named), (stage,)))


def test_bags_show_a_class_that_is_named():
    named = {"data.annotations.files": "x", "data.annotations.classes": ("Tumor",)}
    config = config_of(**{"study.bags.measure": "annotations"}, **named)
    (line,) = marked_classes.missing(config, ("study",))
    assert line == "config.study.bags.shows must be of Tumor, unmarked, got 'nuclei'"
    with pytest.raises(schema.ConfigError, match="must be of nuclei, stroma, empty, got 'Tumor'"):
        config_of(**{"study.bags.shows": "Tumor"})


def test_classes_that_no_polygon_has_are_told(run, caplog):
    annotations = dataclasses.replace(run.config.data.annotations, classes=("Tumour",))
    data = dataclasses.replace(run.config.data, annotations=annotations)
    patch = run.patches("train").patch(0)
    with caplog.at_level(logging.WARNING):
        measure = pixel_labels.PixelLabels("annotations", data, lambda: run.slide_names)
        assert measure.most(*patch) == "unmarked"
    (message,) = caplog.messages
    told = "no polygon is of config.data.annotations.classes=('Tumour',), got ['Tumor', 'Stroma']"
    assert told in message
