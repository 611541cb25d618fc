"""Classes that a user marks as labels of regions, against areas by shapely."""

import json

import numpy as np
import pytest
import shapely
import small_configs
import tissue_like
from PIL import Image

from ssldiff_jax.core import schema
from ssldiff_jax.data import crops, mosaic, plan
from ssldiff_jax.data.annotations import captions
from ssldiff_jax.runs import pixel_labels, region_labels
from ssldiff_jax.slides import SlideError

TUMOR = shapely.Point(400, 300).buffer(220) - shapely.Point(380, 320).buffer(60)
STROMA = shapely.box(500, 100, 760, 700)
BLANK = np.zeros((128, 128, 3), np.uint8)  # no pixels are looked at
HOSTILE = "=cmd()|{0.__class__}<script>"


@pytest.fixture
def data(tmp_path):
    """Two slides at 0.25 µm, patches at 0.5; the second has no file."""
    (tmp_path / "slides").mkdir()
    for number, name in enumerate("ab"):
        Image.fromarray(tissue_like.pixels(number)).save(tmp_path / f"slides/{name}.png")

    def data(*classes):
        shapes = zip(classes, (TUMOR, STROMA), strict=False)
        features = [
            {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)),
             "properties": {"objectType": "annotation", "classification": {"name": name}}}
            for name, shape in shapes
        ]  # fmt: skip
        (tmp_path / "a.geojson").write_text(json.dumps(features))
        annotations = small_configs.section("data.annotations").__dict__ | {
            "files": str(tmp_path / "*.geojson"), "classes": classes,
        }  # fmt: skip
        return small_configs.section("data", slides=str(tmp_path / "slides"), mpp=0.25,
                                     patch_mpp=0.5, annotations=annotations)  # fmt: skip

    return data


def parts(square):
    """Areas of the classes over that of a square of patches' pixels; the last class wins."""
    box = shapely.box(2 * square.left, 2 * square.top, 2 * (square.left + square.width),
                      2 * (square.top + square.height))  # fmt: skip
    stroma = STROMA.intersection(box).area
    tumor = (TUMOR - STROMA).intersection(box).area
    return np.array([tumor, stroma, box.area - tumor - stroma]) / box.area


def test_parts_of_a_square_are_those_of_the_polygons(data):
    measure = pixel_labels.PixelLabels("annotations", data("Tumor", "Stroma"))
    assert measure.names == ("Tumor", "Stroma", "unmarked")
    assert not measure.see_pixels
    rng = np.random.default_rng(0)
    for top, left in rng.integers(0, 256, (20, 2)).tolist():
        square = plan.Square(0, top, left, 128, 128)
        np.testing.assert_allclose(measure.shown(square, BLANK), parts(square), atol=2e-3)
    assert measure.most(plan.Square(0, 130, 256, 128, 128), BLANK) == "Stroma"
    np.testing.assert_array_equal(measure.shown(plan.Square(1, 0, 0, 128, 128), BLANK), [0, 0, 1])


@pytest.mark.parametrize("orientation", range(8))
def test_classes_are_turned_as_pixels_are(data, orientation):
    measure = pixel_labels.PixelLabels("annotations", data("Tumor", "Stroma"))
    square = plan.Square(0, 60, 130, 128, 128)
    upright = measure.classes(mosaic.Region(square, 0, 0, 0, 1), None)
    turned = measure.classes(mosaic.Region(square, orientation, 0, 0, 1), None)
    np.testing.assert_array_equal(turned, crops.orient(upright, orientation))


def test_a_slide_is_found_by_the_name_that_it_had(data):
    """Records were cut when others stood before it: a.png had number 7."""
    config, square = data("Tumor", "Stroma"), plan.Square(7, 60, 130, 128, 128)
    moved = pixel_labels.PixelLabels("annotations", config, lambda: {7: "a.png", 8: "gone.png"})
    first = plan.Square(0, 60, 130, 128, 128)
    now = pixel_labels.PixelLabels("annotations", config)
    np.testing.assert_array_equal(moved.shown(square, BLANK), now.shown(first, BLANK))
    with pytest.raises(SlideError, match=r"must name gone\.png once, .* got 0 slides"):
        moved.shown(plan.Square(8, 0, 0, 128, 128), BLANK)


def test_labels_and_captions_of_a_region(data):
    sources = small_configs.section("prior.conditions", measure="annotations")
    labels = region_labels.RegionLabels.read(
        sources, data("Tumor", HOSTILE), {0: "a.png", 1: "b.png"}, [0]
    )
    spec = labels.spec
    assert spec.labels[:2] == ("Tumor", "Tumor north-west")
    assert spec.labels[5] == HOSTILE
    assert len(spec.labels) == 15
    region = mosaic.Region(plan.Square(0, 60, 130, 128, 128), 0, 0, 0, 1)
    one = labels.of(region, None, np.random.default_rng(0), "train")
    wholes = one.labels.reshape(3, 5)[:, 0]
    np.testing.assert_allclose(wholes, parts(region.square), atol=2e-3)


def test_captions_name_the_classes_as_they_are():
    even = np.full((2, 2, 1), 0.3)
    text = captions.caption((HOSTILE,), even, np.random.default_rng(0), lopsided=0.2)
    assert HOSTILE in text


def test_they_need_files_and_classes(data):
    with pytest.raises(schema.ConfigError, match=r"must come with .*files and classes, got"):
        pixel_labels.PixelLabels("annotations", data())
    for classes in (("A", "A"), ("unmarked",)):
        with pytest.raises(schema.ConfigError, match="names that differ, and none of them"):
            data(*classes)
