"""Cells of large images as GeoJSON: figures of the images in the folders, computed again."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.core import schema
from ssldiff_jax.data import demo_slide
from ssldiff_jax.evaluation.metrics import large_image
from ssldiff_jax.generation import cell_files
from ssldiff_jax.runs import artifacts, held_out, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders, stored_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages.evaluate import cell_files as evaluate_cells
from ssldiff_jax.stages.tools import generate

pytestmark = pytest.mark.e2e
PX = 64


@pytest.fixture(scope="module")
def config(workdir):
    return schema.build(run_config.RunConfig, stored_config.of_run(workdir))


@pytest.fixture(scope="module")
def encoders(config, workdir):
    of_run = artifacts.Artifacts(config, folders.Folders.of(config, workdir))
    return {name: of_run.encoder(name) for name in ("judge", "encoder")}


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cut(image):
    """Cells in reading order."""
    rows, cols = (length // PX for length in image.shape[:2])
    return np.stack(
        [
            image[row * PX : (row + 1) * PX, col * PX : (col + 1) * PX]
            for row in range(rows)
            for col in range(cols)
        ]
    )


def features_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["features"]


def measured(path, name):
    return [feature["properties"]["measurements"][name] for feature in features_of(path)]


def corners(path):
    return [tuple(f["geometry"]["coordinates"][0][0]) for f in features_of(path)]


def require_figures(path, generated, real, encoder, name):
    a, b = unit(encoder(cut(generated))), unit(encoder(cut(real)))
    cosines = a @ b.T
    own = np.diagonal(cosines)
    np.testing.assert_allclose(measured(path, f"{name}: similarity"), own, atol=2e-6)
    ranks = [1 + int((row > value).sum()) for row, value in zip(cosines, own, strict=True)]
    assert measured(path, f"{name}: retrieval rank") == ranks


@pytest.mark.parametrize("number", [0, 1])
def test_evaluate_writes_what_each_network_finds_of_each_cell(workdir, encoders, number):
    path = workdir / "evaluate" / f"cells_{number}.geojson"
    with Image.open(workdir / "sample" / f"image_{number}.png") as image:
        generated = np.asarray(image.convert("RGB"))
    with Image.open(workdir / "patches" / f"region_{number}.png") as image:
        real = np.asarray(image.convert("RGB"))
    for name, encoder in encoders.items():
        require_figures(path, generated, real, encoder, name)
    kept = np.load(workdir / "evaluate" / f"similarity_{number}.npy")
    found = np.reshape(measured(path, "encoder: similarity"), kept.shape)
    np.testing.assert_allclose(found, kept, atol=1e-6)
    assert corners(path) == [(0, 0), (PX, 0), (0, PX), (PX, PX)]
    nearest = measured(path, "judge: similarity to the nearest training patch")
    (training,) = (workdir / "evaluate" / "training").glob("judge-*.npy")
    cosines = unit(encoders["judge"](cut(generated))) @ unit(np.load(training)).T
    np.testing.assert_allclose(nearest, cosines.max(axis=1), atol=2e-6)
    names = {f["properties"]["classification"]["name"] for f in features_of(path)}
    assert names <= {"nuclei", "stroma", "empty"}


@pytest.mark.parametrize("number", [0, 1])
def test_cells_on_the_slide_are_where_its_pixels_are_those_of_the_region(workdir, number):
    path = workdir / "evaluate" / f"cells_{number}_slide.geojson"
    with Image.open(workdir / "patches" / f"region_{number}.png") as image:
        real = np.asarray(image.convert("RGB"))
    slide = slides.open_slide(demo_slide.demo_slide())
    for cell, (x, y) in zip(cut(real), corners(path), strict=True):
        there = slide.read_region(y, x, PX, PX, mpp=slide.mpp)
        np.testing.assert_array_equal(there, cell)


def drawn(config, workdir, tmp_path, **settings):
    """The folder that the tool `generate` writes."""
    from ssldiff_jax.train import mesh as mesh_lib

    section = dataclasses.replace(config.generate, **settings)
    output = dataclasses.replace(config.sample.output, formats=("png",))
    sample = dataclasses.replace(config.sample, output=output)
    asked = dataclasses.replace(config, generate=section, sample=sample)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 1, 1, ()))
    folder = tmp_path / "generate"
    folder.mkdir()
    generate.run(stage.Context(asked, workdir, mesh).at("generate", folder))
    return folder


@pytest.mark.parametrize(
    "part",
    [{"region": (100, 40, 128, 2 * PX + 20)}, {"area": f"80,200,{2 * (2 * PX + 20)},256"}],
    ids=["region", "area"],
)
def test_an_image_of_a_part_of_a_slide_has_its_cells_in_both(
    config, workdir, tmp_path, encoders, part
):
    """From (100, 40) px on, of a slide of 0.25 µm/px that is read at 0.5; the last column is cut
    off within a cell."""
    pixels = slides.open_slide(demo_slide.demo_slide()).read_region(900, 400, 600, 700, mpp=0.5)
    reference = tmp_path / "mine.tif"
    pyramid.write_pyramid(reference, pixels, pyramid.Scale(0.25))
    folder = drawn(config, workdir, tmp_path, reference=str(reference), **part)
    generated = pyramid.read_image(folder / "image.png")
    slide = slides.open_slide(reference)
    real = slide.read_region(100, 40, 128, 2 * PX + 20, mpp=0.5)
    require_figures(folder / "cells.geojson", generated, real, encoders["judge"], "judge")
    assert corners(folder / "cells.geojson") == [(0, 0), (PX, 0), (0, PX), (PX, PX)]
    assert corners(folder / "cells_slide.geojson") == [
        (80 + 2 * x, 200 + 2 * y) for y in (0, PX) for x in (0, PX)
    ]
    sides = [f["geometry"]["coordinates"][0] for f in features_of(folder / "cells_slide.geojson")]
    assert {ring[1][0] - ring[0][0] for ring in sides} == {2 * PX}


def test_an_image_that_is_spread_over_another_size_has_none(config, workdir, tmp_path):
    folder = drawn(config, workdir, tmp_path, size=(192, 128))
    assert (folder / "image.png").exists()
    assert not list(folder.glob("*.geojson"))


def test_a_reference_that_is_gone_costs_the_cells_alone(tmp_path, encoders, caplog):
    np.zeros((PX, 2 * PX, 3), np.uint8).tofile(tmp_path / "pixels.raw")

    def read(top, left, height, width):
        raise slides.SlideError("expected a readable slide, got gone.svs")

    network = cell_files.Network("judge", encoders["judge"])
    output = cell_files.CellOutput(("geojson",), 0.5)
    files = cell_files.CellFiles(tmp_path, network, read, PX, None, output)
    files.write(pyramid.RawImage(tmp_path / "pixels.raw", PX, 2 * PX))
    assert "files of cells are left out: expected a readable slide, got gone.svs" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["pixels.raw"]


def test_places_are_those_of_the_level(config, workdir):
    """Of twice the microns per pixel a corner has half the pixels, each of two."""
    of, values = folders.Folders.of(config, workdir), stored_config.of_run(workdir)
    values["data"] |= {"levels": [1.0, 2.0]}
    values["data"]["records"] |= {"scales": [2.0]}
    values["sample"] |= {"level": 2.0}
    coarse = held_out.slide_places(schema.build(run_config.RunConfig, values), of)
    for a, b in zip(held_out.slide_places(config, of), coarse, strict=True):
        assert a.factor == 1
        assert (b.factor, b.top, b.left) == (2, a.top // 2, a.left // 2)


def test_a_generated_image_has_its_cells_as_anndata(config, workdir, tmp_path, encoders):
    anndata = pytest.importorskip("anndata")
    pixels = slides.open_slide(demo_slide.demo_slide()).read_region(900, 400, 600, 700, mpp=0.5)
    reference = tmp_path / "mine.tif"
    pyramid.write_pyramid(reference, pixels, pyramid.Scale(0.25))
    settings = {"region": (100, 40, 128, 2 * PX), "cells": ("geojson", "h5ad")}
    folder = drawn(config, workdir, tmp_path, reference=str(reference), **settings)
    table = anndata.read_h5ad(folder / "cells.h5ad")
    generated = pyramid.read_image(folder / "image.png")
    np.testing.assert_allclose(table.X, unit(encoders["judge"](cut(generated))), atol=1e-5)
    for name, column in (
        ("judge: similarity", "judge_similarity"),
        ("judge: retrieval rank", "judge_retrieval_rank"),
    ):
        kept = measured(folder / "cells.geojson", name)
        np.testing.assert_allclose(table.obs[column], kept, atol=1e-6)
    for key, name in (("spatial", "cells"), ("spatial_slide", "cells_slide")):
        side = PX if key == "spatial" else 2 * PX
        kept = np.array(corners(folder / f"{name}.geojson")) + side / 2
        np.testing.assert_array_equal(table.obsm[key], kept)
    assert (table.uns["encoder"], table.uns["mpp"]) == ("judge", 0.5)


def test_a_table_of_evaluate_has_the_embeddings_of_both_networks(workdir, tmp_path, encoders):
    anndata = pytest.importorskip("anndata")
    generated = pyramid.read_image(workdir / "sample" / "image_0.png")
    real = pyramid.read_image(workdir / "patches" / "region_0.png")
    pair = large_image.Pair(generated, real)
    of = {name: [large_image.CellFeatures.of(pair, e, PX)] for name, e in encoders.items()}
    place = held_out.SlidePlace(10, 20, 2.0)
    files = evaluate_cells.CellFiles([pair], of, PX, None, None, [place])
    files.write(tmp_path, ("h5ad",), mpp=0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"similarity_0.npy", "cells_0.h5ad"}
    table = anndata.read_h5ad(tmp_path / "cells_0.h5ad")
    for found, name in ((table.X, "encoder"), (table.obsm["judge"], "judge")):
        np.testing.assert_allclose(found, unit(encoders[name](cut(generated))), atol=1e-5)
        own = (found * unit(encoders[name](cut(real)))).sum(axis=1)
        np.testing.assert_allclose(table.obs[f"{name}_similarity"], own, atol=1e-5)
    assert table.obsm["spatial_slide"][0].tolist() == [2 * (20 + PX / 2), 2 * (10 + PX / 2)]
