"""What is said of scenes is said in metres, and of slides in microns."""

import dataclasses
import logging
import re

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from configs import naip_demo, tiny
from ssldiff_jax import slides
from ssldiff_jax.core import schema
from ssldiff_jax.data import slide_source
from ssldiff_jax.generation import large_image, user_images
from ssldiff_jax.report import figures, levels
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import provenance
from ssldiff_jax.slides import pyramid

MICRONS = re.compile(r"micron|µm|mpp", re.IGNORECASE)


@pytest.fixture
def scene(tmp_path):
    """A function from a coordinate system and a transform to a GeoTIFF there."""

    def write(crs="EPSG:32614", transform=UTM, name="naip.tif"):
        profile = {
            "driver": "GTiff", "height": 80, "width": 90, "count": 3, "dtype": "uint8",
            "crs": crs, "transform": transform,
        }  # fmt: skip
        with rasterio.open(tmp_path / name, "w", **profile) as file:
            file.write(np.full((3, 80, 90), 7, np.uint8))
        return tmp_path / name

    return write


def of_scenes(**data):
    config = schema.build(run_config.RunConfig, naip_demo.get_config().to_dict())
    return dataclasses.replace(config.data, **data)


UTM = Affine(5, 0, 5e5, 0, -5, 5.2e6)
AREA = of_scenes().holdout


def refused(call):
    with pytest.raises(ValueError, match=r"\S") as caught:
        call()
    (line,) = str(caught.value).splitlines()
    return line


def test_a_scene_coarser_than_patches(scene):
    """The first thing that goes wrong: scenes of 5 m with the config of 1 m."""
    slide = slides.open_slide(scene())
    line = refused(lambda: slide.shape_at(of_scenes().patch_mpp))
    assert line == (
        f"expected at least half of the native 5 m/px of {slide.path}, got 1 m/px: "
        "config.data.patch_metres says that of patches"
    )


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 60)),
        ("EPSG:32614", Affine(5, 0, 5e5, 0, -6, 5.2e6)),
        ('LOCAL_CS["here",UNIT["metre",1]]', Affine(5, 0, 0, 0, -5, 0)),
    ],
)
def test_a_scene_without_one_scale_is_told_in_metres(scene, crs, transform):
    line = refused(lambda: slides.open_slide(scene(crs, transform)))
    assert line.endswith("naip.tif: pass --config.data.metres=<metres per pixel>")
    assert not MICRONS.search(line)


def test_a_picture_may_be_of_either(tmp_path, scene):
    """A TIFF with a place in no coordinate system too."""
    pyramid.write_png(tmp_path / "it.png", np.zeros((8, 8, 3), np.uint8))
    for path in (tmp_path / "it.png", scene(None)):
        line = refused(lambda p=path: slides.open_slide(p))
        assert "--config.data.mpp=<microns per pixel> or --config.data.metres=<metres per" in line


def test_what_is_assumed_of_a_picture_among_scenes(tmp_path, caplog):
    pyramid.write_png(tmp_path / "it.png", np.zeros((80, 80, 3), np.uint8))
    with caplog.at_level(logging.INFO, "ssldiff_jax"):
        user_images.UserImage.open(of_scenes(), str(tmp_path / "it.png"))
    assert "it.png: using 1 m/px" in caplog.text
    assert "it.png has 1 m/px, read at 1 m/px" in caplog.text


def test_a_reference_that_is_too_small(scene):
    line = refused(lambda: user_images.UserImage.open(of_scenes(patch_mpp=1e7), str(scene())))
    assert "must hold a cell of 64 px at 10 m/px, got 40 × 45 px" in line


def test_a_list_of_patches_without_a_scale(tmp_path):
    images = type("Images", (), {"source": "scenes.npy"})()
    cut = lambda data: slide_source.tasks(data, tmp_path, images)
    line = refused(lambda: cut(of_scenes(holdout=AREA)))
    assert line == "expected metres per pixel of scenes.npy: pass --config.data.metres=<number>"
    line = refused(lambda: cut(of_scenes(holdout=AREA, patch_mpp=0.5)))
    assert line == "expected microns per pixel of scenes.npy: pass --config.data.mpp=<number>"


def test_what_differs_between_two_runs_of_scenes():
    lines = provenance._lines({"data.patch_mpp": (5e6, 1e6), "seed": (0, 1)})
    assert lines == ["seed: 0 → 1", "data.patch_metres: 5.0 → 1.0"]
    lines = provenance._lines({"data.patch_mpp": (0.5, 1.0)})
    assert lines == ["data.patch_mpp: 0.5 → 1.0"]


@pytest.mark.parametrize(("mpp", "scale"), [(5e6, "5 m/px"), (0.5, "0.5 µm/px")])
def test_reports_and_notebooks(mpp, scale):
    image = large_image.LargeImage(np.zeros((4, 4, 3), np.uint8), mpp, 0, 0, 0.0)
    assert f", {scale}, " in repr(image)
    assert levels._head("2", mpp / 2) == f"× 2 <small>{scale}</small>"
    collected = {
        "data": {"lattices": [(2, 2)], "patch_px": 64, "mpp": mpp}, "date": "today", "seed": 0,
        "machine": {
            "devices": ["cpu:0"], "backend": "cpu", "cores": 2, "processor": "one",
            "memory_gb": 24.0,
        },
        "versions": {"jax": "0"},
    }  # fmt: skip
    assert f"4 cells of 64 px at {scale}." in figures.origin(collected)


def test_tissue_of_slides_is_told_in_microns(tmp_path):
    config = schema.build(run_config.RunConfig, tiny.get_config().to_dict())
    pyramid.write_png(tmp_path / "it.png", np.zeros((8, 8, 3), np.uint8))
    line = refused(
        lambda: user_images.UserImage.open(config.data, str(tmp_path / "it.png"), mpp=0.5)
    )
    assert f"at {config.data.patch_mpp:g} µm/px, got 8 × 8 px" in line
