"""Images that the config places, and the STAC items beside their COGs; the models are left out."""

import json
import logging

import numpy as np
import pytest
import rasterio
from test_generate_place import PX, Model, Render

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.generation import generator, render, sources
from ssldiff_jax.runs import stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages.tools import generate

BOUNDS = (500_000.0, 5_200_000.0, 500_640.0, 5_200_320.0)  # 128 × 64 px of 5 m
UTM = {"crs": "EPSG:32633", "bounds": BOUNDS}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function from what is asked for to the folder of the image, of 5 m from a picture."""
    monkeypatch.setattr(render, "LargeImageRender", Render)

    def run(reference="mine.png", sample=None, licence="", **settings):
        pyramid.write_png(tmp_path / "mine.png", np.zeros((PX, 2 * PX, 3), np.uint8))
        values = tiny.get_config().to_dict()
        values["generate"] |= {"reference": str(tmp_path / reference)} | settings
        values["data"]["patch_metres"] = 5.0
        values["export"]["licence"] = licence
        values["seed"] = 3
        config = schema.build(run_config.RunConfig, values)
        model = Model(patch_px=PX, config=config, seen=[])
        monkeypatch.setattr(generator.Generator, "of_run", lambda *_: model)
        context = stage.Context(config, tmp_path / "naip", None)
        context.folder("generate").mkdir(parents=True, exist_ok=True)
        generate.run(context)
        return context.folder("generate")

    return run


def test_a_picture_lies_where_the_config_says(drawn):
    folder = drawn(**UTM, licence="CC0-1.0")
    with rasterio.open(folder / "image.cog.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert tuple(file.bounds) == BOUNDS
        assert file.shape == (64, 128)
    item = json.loads((folder / "image.stac.json").read_text())
    assert item["id"] == folder.name
    properties = item["properties"]
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == [64, 128]
    assert properties["proj:transform"] == [5.0, 0.0, 5e5, 0.0, -5.0, 5_200_320.0]
    assert properties["gsd"] == 5.0
    assert properties["license"] == "CC0-1.0"
    assert properties["ssldiff_jax:synthetic"] is True
    assert properties["ssldiff_jax:models"] == "naip"
    assert properties["ssldiff_jax:seed"] == 3
    assert "ssldiff_jax" in properties["processing:software"]
    assert item["assets"]["image"]["href"] == "./image.cog.tif"


def test_a_corner_is_enough(drawn):
    folder = drawn(crs="EPSG:32633", origin=(500_000, 5_200_320))
    with rasterio.open(folder / "image.cog.tif") as file:
        assert tuple(file.bounds) == BOUNDS
    item = json.loads((folder / "image.stac.json").read_text())
    assert "license" not in item["properties"]


def test_grown_images_fill_the_bounds_themselves(drawn):
    """They are those of the image, with what is generated beyond its reference."""
    west, south, east, north = BOUNDS
    grown = (west, south, east + 640, north + 640)
    folder = drawn(crs="EPSG:32633", bounds=grown, outpaint_px=PX)
    with rasterio.open(folder / "image.cog.tif") as file:
        assert tuple(file.bounds) == grown
        assert file.shape == (3 * PX, 4 * PX)


def test_bounds_of_other_pixels_are_refused(drawn, tmp_path):
    wrong = (*BOUNDS[:2], BOUNDS[2] + 64, BOUNDS[3])
    message = (
        r"^config\.generate\.bounds must give pixels of the models' 5 m, within 1%, got 5\.5 m × "
        r"5 m for 128 × 64 px; of these bounds size=\(64, 141\) would fit$"
    )
    with pytest.raises(ValueError, match=message):
        drawn(crs="EPSG:32633", bounds=wrong)


def test_bounds_are_looked_at_before_a_prior_samples(drawn, monkeypatch):
    sampled = []
    monkeypatch.setattr(sources.Source, "of_prior", lambda *_: sampled.append(1))
    prior = tiny.get_config().generate.prior.to_dict() | {"anything": True}
    with pytest.raises(ValueError, match="must give pixels of the models' 5 m"):
        drawn(**UTM, prior=prior, size=(64, 64))
    assert not sampled


def test_a_reference_that_lies_somewhere_is_not_moved(drawn, tmp_path):
    profile = {
        "driver": "GTiff", "height": PX, "width": 2 * PX, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32614", "transform": rasterio.Affine(5, 0, 4e5, 0, -5, 4.4e6),
    }  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
        file.write(np.full((3, PX, 2 * PX), 7, np.uint8))
    with pytest.raises(ValueError, match=r"crs must come with what lies nowhere.*scene\.tif$"):
        drawn(reference="scene.tif", **UTM)
    # Alone, its own place has an item, too.
    folder = drawn(reference="scene.tif")
    item = json.loads((folder / "image.stac.json").read_text())
    assert item["properties"]["proj:code"] == "EPSG:32614"


def test_an_image_that_lies_nowhere_has_no_item(drawn, caplog):
    with caplog.at_level(logging.INFO):
        folder = drawn()
    assert (folder / "image.cog.tif").exists()
    assert not (folder / "image.stac.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crs": "EPSG:32633"}, "config.generate.crs must come with either bounds"),
        ({"bounds": BOUNDS}, "config.generate.crs must come with either bounds"),
        ({"crs": "EPSG:0", "origin": (0, 0)}, "config.generate.crs must be EPSG:<number>"),
        (UTM | {"bounds": (1, 2, 0, 3)}, "config.generate.bounds must have west < east"),
    ],
)
def test_what_is_no_place_is_refused_with_the_config(settings, message):
    values = tiny.get_config().to_dict()
    values["generate"] |= settings
    with pytest.raises(schema.ConfigError) as caught:
        schema.build(run_config.RunConfig, values)
    assert str(caught.value).startswith(message)
