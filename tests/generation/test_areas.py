"""Regions and masks that a user names in a viewer, against rectangles worked out by hand and
shapely."""

import json
import os
import pathlib

import numpy as np
import pytest
import rasterio
import shapely
import small_configs
import tissue_like

from ssldiff_jax.core import schema
from ssldiff_jax.generation import areas
from ssldiff_jax.slides import pyramid

# A scene of NAIP, 5 m, of North Dakota; without it the test is skipped.
NAIP = pathlib.Path(os.environ.get("SSLDIFF_NAIP", "none")) / "20090818.tif"


@pytest.fixture
def slide(tmp_path):
    """768² px at 0.25 µm, of which patches see half."""
    pyramid.write_pyramid(tmp_path / "slide.tif", tissue_like.pixels(0), pyramid.Scale(0.25))
    return str(tmp_path / "slide.tif")


@pytest.fixture
def marks(tmp_path):
    def marks(*shapes, name="marks"):
        features = [
            {
                "type": "Feature",
                "geometry": json.loads(shapely.to_geojson(shape)),
                "properties": {"objectType": "annotation", "name": called,
                               "classification": {"name": kind}},
            }
            for called, kind, shape in shapes
        ]  # fmt: skip
        path = tmp_path / f"{name}.geojson"
        path.write_text(json.dumps(features))
        return str(path)

    return marks


def section(**changes):
    return small_configs.section("generate", **changes)


def data(mpp=0.5, **changes):
    return small_configs.section("data", patch_mpp=mpp, **changes)


def test_a_rectangle_of_level_0_is_half_as_many_pixels_of_patches(slide):
    asked = section(reference=slide, area="100,40,300,200.5")
    found = areas.with_region(asked, data())
    # top, left, height, width: 40/2, 100/2, (240.5 − 40)/2 rounded, 300/2.
    assert found.region == (20, 50, 100, 150)
    assert found.area == ""
    assert areas.with_region(section(reference=slide), data()).region == ()


@pytest.mark.parametrize("name", ["#Gland", "#Tumor", "#gland #2"])
def test_a_feature_by_its_name_or_its_class_is_its_bounding_box(slide, marks, name):
    gland = shapely.Polygon([(100, 40), (400, 140), (260, 240)])
    path = marks(("Gland" if name != "#gland #2" else "gland #2", "Tumor", gland),
                 ("other", "Stroma", shapely.box(0, 0, 9, 9)))  # fmt: skip
    found = areas.with_region(section(reference=slide, area=path + name), data())
    assert found.region == (20, 50, 100, 150)


def test_a_file_of_one_feature_needs_no_name(slide, marks):
    path = marks(("", "", shapely.box(100, 40, 400, 240)))
    assert areas.with_region(section(reference=slide, area=path), data()).region[2:] == (100, 150)
    assert areas.words_of(f"{path}#A/B") == "marks A/B"
    assert areas.file_of(f"{path}#A") == path
    assert areas.file_of("1,2,3,4") == ""
    assert areas.file_of("mask.png") == "mask.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": "1,2,3"}, "area must be x,y,width,height in px of level 0, or file.geojson#name"),
        ({"area": "1,2,3,nan"}, "area must be x,y,width,height"),
        ({"area": "1,2,0,5"}, "area must be x,y,width,height"),
        ({"area": "-1,2,3,5"}, "area must be x,y,width,height"),
        ({"area": "__import__('os')"}, "area must be x,y,width,height"),
        ({"area": "1,2,3,4", "region": (0, 0, 64, 64)}, "must have region or area, not both"),
        ({"area": "1,2,3,4", "reference": ""}, "area must come with an image as generate.refer"),
        ({"area": "a.geojson#b", "reference": "grid.npy"}, "area must come with an image"),
    ],
)
def test_areas_that_cannot_be(changes, message):
    with pytest.raises(schema.ConfigError, match=message):
        section(**{"reference": "slide.svs"} | changes)


def test_areas_that_a_slide_has_not(slide, marks):
    two = marks(("a", "Tumor", shapely.box(0, 0, 9, 9)), ("b", "Tumor", shapely.box(9, 9, 20, 20)))
    far = marks(("a", "", shapely.box(0, 0, 9000, 9)), name="far")
    for area, message in (
        ("700,0,300,300", r"must lie inside of .*slide.tif \(768 × 768 px at level 0\), got x 700"),
        (f"{two}#Tumor", "one feature called 'Tumor' in .*got 2: give the one .* a name"),
        (f"{two}#c", "a feature called 'c' in .*marks.geojson, got 'a', 'Tumor', 'b'"),
        (far, "far.geojson, got feature 1 .*'a'.*is it of another slide"),
        ("none.geojson#a", "none.geojson: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            areas.with_region(section(reference=slide, area=area), data())


@pytest.mark.parametrize("region", [(), (32, 16, 200, 180)])
def test_polygons_that_stay_are_white(slide, marks, region):
    shape = shapely.Point(400, 350).buffer(250) - shapely.Point(420, 360).buffer(90)
    path = marks(("kept", "Tumor", shape), ("other", "Stroma", shapely.box(0, 0, 60, 60)))
    asked = section(reference=slide, mask=f"{path}#Tumor", region=region)
    keep = areas.keep_mask(asked, data())
    top, left, height, width = region or (0, 0, 384, 384)
    assert keep.shape == (height, width)
    rows, cols = np.mgrid[0:height, 0:width]
    centres = shapely.points(2 * (cols + left + 0.5), 2 * (rows + top + 0.5))
    expected = shapely.contains(shape, centres)
    # Where the border runs through a centre, either is right.
    assert (keep.astype(bool) != expected).mean() < 1e-4
    both = areas.keep_mask(section(reference=slide, mask=path, region=region), data())
    assert both.sum() >= keep.sum()


def test_polygons_that_stay_need_a_slide(marks):
    path = marks(("kept", "", shapely.box(0, 0, 9, 9)))
    for reference in ("", "grid.npy"):
        asked = section(reference=reference, mask=path)
        with pytest.raises(ValueError, match="mask as GeoJSON must come with an image"):
            areas.keep_mask(asked, data())


def test_a_field_on_the_ground_of_a_scene(golden_path):
    """By rasterio's own window of the bounds, in the coordinates of the scene."""
    if not NAIP.exists():
        pytest.skip("SSLDIFF_NAIP names no folder with 20090818.tif")
    with rasterio.open(NAIP) as file:
        values = json.loads(golden_path("annotations_utm.geojson").read_text())
        field = shapely.from_geojson(json.dumps(values["features"][1]["geometry"]))
        window = rasterio.windows.from_bounds(*field.bounds, file.transform)
    # GDAL calls the property `name` what the recording calls so: "A" and "B".
    path = golden_path("annotations_degrees.geojson")
    asked = section(reference=str(NAIP), area=f"{path}#B")
    top, left, height, width = areas.with_region(asked, data(5e6)).region
    assert (top, left) == (round(window.row_off), round(window.col_off))
    assert abs(height - window.height) <= 1
    assert abs(width - window.width) <= 1
