"""Embeddings of whole slides as HDF5: read back by h5py as CLAM does, and as a run's own source."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import openslide
import pytest
from PIL import Image

from configs import tiny
from ssldiff_jax import slides as slides_lib
from ssldiff_jax.core import schema
from ssldiff_jax.data import demo_slide, plan, store
from ssldiff_jax.data.precomputed import cells, embedding_grids, source
from ssldiff_jax.runs import launch, stage
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import stored_config
from ssldiff_jax.slides import pyramid
from ssldiff_jax.stages import table
from ssldiff_jax.stages.tools import features

pytestmark = pytest.mark.e2e
PX = 64
DEMO = demo_slide.demo_slide()


@pytest.fixture
def bags(workdir, tmp_path):
    """(**section) → the folder of files, and `results.json`."""
    values = stored_config.of_run(workdir)

    def run(**settings):
        config = json.loads(json.dumps(values))
        config["features"] |= {"folder": str(tmp_path / "bags")} | settings
        context = stage.Context(schema.build(run_config.RunConfig, config), workdir, None)
        context = context.at("features", tmp_path / "features")
        features.run(context)
        results = json.loads((tmp_path / "features" / "results.json").read_text())
        return tmp_path / "bags" / "h5_files", results

    return run


@dataclasses.dataclass
class Clam:
    """What CLAM's data set takes of `h5_files/SLIDE.h5`."""

    features: np.ndarray
    coords: np.ndarray
    attributes: dict

    @classmethod
    def read(cls, path):
        with h5py.File(path, "r") as file:
            attributes = dict(file["coords"].attrs)
            return cls(file["features"][:], file["coords"][:], attributes)


@pytest.fixture(scope="module")
def encode(workdir):
    from ssldiff_jax.runs import artifacts
    from ssldiff_jax.runs.workdir import folders

    config = schema.build(run_config.RunConfig, stored_config.of_run(workdir))
    return artifacts.Artifacts(config, folders.Folders.of(config, workdir)).encoder()


def drawn(folder, seed):
    """A pyramid with its facts beside it, as the tool `generate` leaves them."""
    folder.mkdir(parents=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 15, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((15 * 16, 12 * 16)))
    pyramid.write_pyramid(folder / "image.tif", image, pyramid.Scale(0.5))
    (folder / "image.json").write_text("{}")
    return folder / "image.tif"


def test_the_bag_of_the_slide_is_as_its_readers_have_it(bags, encode):
    """Values are the encoder's of the pixels that OpenSlide reads there."""
    folder, results = bags()
    bag = Clam.read(folder / "cmu_small_region.h5")
    height, width = slides_lib.open_slide(DEMO).shape
    assert len(bag.features) == len(bag.coords) == results["patches"] > 300
    assert bag.features.dtype == np.float32
    assert np.issubdtype(bag.coords.dtype, np.integer)
    wanted = {
        "patch_size": PX, "patch_size_level0": PX, "overlap": 0, "level0_width": width,
        "level0_height": height, "level0_magnification": 20, "target_magnification": 20,
        "name": "cmu_small_region", "savetodir": "h5_files",
    }  # fmt: skip
    assert bag.attributes == wanted
    # Whole patches side by side, each once, row by row.
    assert not (bag.coords % PX).any()
    assert (bag.coords >= 0).all()
    assert (bag.coords + PX <= [width, height]).all()
    order = np.lexsort((bag.coords[:, 0], bag.coords[:, 1]))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert len(np.unique(bag.coords, axis=0)) == len(bag.coords)
    chosen = np.arange(0, len(bag.coords), 41)
    with openslide.OpenSlide(str(DEMO)) as raw:
        read = lambda corner: np.asarray(raw.read_region(corner, 0, (PX, PX)))[..., :3]
        pixels = np.stack([read(corner) for corner in bag.coords[chosen].tolist()])
    np.testing.assert_allclose(bag.features[chosen], encode(pixels), atol=1e-5)


def test_glass_is_left_out_unless_asked_for(bags):
    folder, _ = bags()
    few = Clam.read(folder / "cmu_small_region.h5").coords
    folder, results = bags(min_tissue=0.0)
    every = Clam.read(folder / "cmu_small_region.h5").coords
    height, width = slides_lib.open_slide(DEMO).shape
    assert len(every) == (height // PX) * (width // PX) > len(few)
    assert not results["slides"][0]["was_there"]
    left = {tuple(c) for c in every.tolist()} - {tuple(c) for c in few.tolist()}
    assert len(left) == len(every) - len(few)
    with openslide.OpenSlide(str(DEMO)) as raw:
        colour = lambda corner: np.ptp(np.asarray(raw.read_region(corner, 0, (PX, PX)))[..., :3], 2)
        glass = np.mean([colour(corner).mean() for corner in sorted(left)[::20]])
        tissue = np.mean([colour(corner).mean() for corner in few[::20].tolist()])
    assert tissue > 2 * glass


def test_what_is_there_stays_and_what_is_not_is_made(bags, tmp_path):
    one, two = drawn(tmp_path / "generate/one", 1), drawn(tmp_path / "generate/two", 2)
    pattern = str(tmp_path / "generate/*/image.tif")
    folder, first = bags(slides=pattern, min_tissue=0.0)
    # By the folder of the request: all of them are called image.
    assert [entry["name"] for entry in first["slides"]] == ["one", "two"]
    assert first["patches"] == 2 * 3 * 3
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(before) == {"one.h5", "two.h5"}
    (folder / "two.h5").unlink()
    _, second = bags(slides=pattern, min_tissue=0.0)
    assert [entry["was_there"] for entry in second["slides"]] == [True, False]
    assert (folder / "one.h5").stat().st_mtime_ns == before["one.h5"]
    assert (folder / "two.h5").stat().st_mtime_ns > before["two.h5"]
    # A slide that changed is made again; its neighbour is not.
    shutil.copy(one, two)
    _, third = bags(slides=pattern, min_tissue=0.0)
    assert [entry["was_there"] for entry in third["slides"]] == [True, False]
    same = [Clam.read(folder / f"{name}.h5").features for name in ("one", "two")]
    np.testing.assert_array_equal(*same)


def test_a_drawn_bag_has_the_embeddings_of_its_pixels(bags, tmp_path, encode):
    """As Pillow, and not OpenSlide, reads them."""
    path = drawn(tmp_path / "generate/one", 3)
    folder, _ = bags(slides=str(path), min_tissue=0.0)
    bag = Clam.read(folder / "one.h5")
    with Image.open(path) as image:
        pixels = np.asarray(image)
    cut = [pixels[y : y + PX, x : x + PX] for x, y in bag.coords.tolist()]
    np.testing.assert_allclose(bag.features, encode(np.stack(cut)), atol=1e-5)
    # And a generator takes it as a grid.
    grid = embedding_grids.of_file(folder / "one.h5")
    np.testing.assert_array_equal(grid.reshape(-1, grid.shape[2]), bag.features)
    assert grid.shape[:2] == (3, 3)


def test_slides_that_fail_get_a_line_each_and_the_others_go_on(bags, tmp_path, caplog):
    path = drawn(tmp_path / "generate/one", 4)
    (tmp_path / "bad.tif").write_bytes(b"no image")
    pyramid.write_png(tmp_path / "small.png", np.zeros((20, 500, 3), np.uint8))
    slides = ",".join(map(str, (path, tmp_path / "bad.tif", tmp_path / "small.png")))
    folder, results = bags(slides=slides, min_tissue=0.0)
    assert [p.name for p in folder.iterdir()] == ["one.h5"]
    assert {entry["slide"] for entry in results["not_used"]} == {
        str(tmp_path / "bad.tif"), str(tmp_path / "small.png")
    }  # fmt: skip
    for entry in results["not_used"]:
        assert "\n" not in entry["reason"]
        assert f"no bag of {entry['slide']}: {entry['reason']}" in caplog.text
    with pytest.raises(slides_lib.SlideError, match="no slide could be used; the first"):
        bags(slides=str(tmp_path / "bad.tif"))


def test_slides_that_fail_are_told_by_the_command_as_those_of_patches(workdir, tmp_path):
    """What `launch` returns is what `main` ends with status 3 for."""
    path = drawn(tmp_path / "generate/one", 9)
    (tmp_path / "bad.tif").write_bytes(b"no image")
    values = stored_config.of_run(workdir) | {"stages": "features"}
    found = tmp_path / "run"
    shutil.copytree(workdir, found, symlinks=True)
    for slides, expected in (
        (f"{path},{tmp_path / 'bad.tif'}",
         f"1 of the files could not be used: {found / 'features/results.json'}"),
        (str(path), None),
    ):  # fmt: skip
        section = values["features"] | {"folder": str(tmp_path / "bags"), "slides": slides}
        config = json.loads(json.dumps(values | {"features": section | {"min_tissue": 0.0}}))
        assert launch.launch(config, found, table.STAGES) == expected


def test_a_file_of_another_slide_is_not_replaced(bags, tmp_path):
    folder, _ = bags(slides=str(drawn(tmp_path / "generate/one", 5)), min_tissue=0.0)
    before = (folder / "one.h5").read_bytes()
    other = drawn(tmp_path / "elsewhere/one", 6)
    two = drawn(tmp_path / "generate/two", 7)
    _, results = bags(slides=f"{other},{two}", min_tissue=0.0)
    (refused,) = results["not_used"]
    assert "one.h5 must be free or a bag of" in refused["reason"]
    assert str(tmp_path / "generate/one/image.tif") in refused["reason"]
    assert (folder / "one.h5").read_bytes() == before
    assert [entry["name"] for entry in results["slides"]] == ["two"]
    (folder / "two.h5").write_text("mine")
    _, results = bags(slides=str(drawn(tmp_path / "generate/three", 8)), min_tissue=0.0)
    with pytest.raises(slides_lib.SlideError, match="must be free or a bag, got no HDF5"):
        bags(slides=str(two), min_tissue=0.0)
    assert (folder / "two.h5").read_text() == "mine"


@pytest.mark.parametrize("mpp", [0.25, 0.37, 0.501, 0.83])
def test_our_own_reader_finds_the_patches_that_were_embedded(bags, workdir, tmp_path, mpp):
    """At any scale, whole pixels of level 0 or not."""
    pixels = slides_lib.open_slide(DEMO).read_region(900, 400, 500, 640, mpp=0.5)
    pyramid.write_png(tmp_path / "mine.png", pixels)
    folder, _ = bags(slides=str(tmp_path / "mine.png"), mpp=mpp, min_tissue=0.0)
    bag = Clam.read(folder / "mine.h5")
    side = bag.attributes["patch_size_level0"]
    assert not (bag.coords % side).any()
    assert abs(side - PX * 0.5 / mpp) <= 0.5
    config = schema.build(run_config.RunConfig, stored_config.of_run(workdir))
    section = source.EmbeddingsSection(str(folder), "", "", "pixels", 1, "patches")
    data = dataclasses.replace(
        config.data, crops=dataclasses.replace(config.data.crops, context_px=0)
    )
    slide = slides_lib.open_slide(tmp_path / "mine.png", mpp=mpp)
    part = plan.Part((0, 10**6), (0, 10**6))
    found = cells.ImportedCells(section, data)(slide, {"train": part})["train"]
    assert [square.row for square in found] == list(range(len(bag.coords)))
    scale = slide.downsample(0.5)
    places = np.array([[square.left, square.top] for square in found])
    assert np.abs(places * scale - bag.coords).max() <= 0.5 * max(scale, 1)


def test_a_run_takes_the_bag_for_its_embeddings(bags, tmp_path):
    """As those computed elsewhere: they agree with the pixels of its patches, row by row."""
    folder, _ = bags()
    c = tiny.get_config()
    c.data.records.record_px = PX + 2 * c.data.crops.context_px
    c.data.crops.dihedral, c.data.crops.num_crops = False, 0
    c.encoder.model.shift_px = 0
    c.autoencoder.loss.perceptual_weight = 0.0
    c.sample.conditioning = "interpolated"
    c.embeddings.source = str(folder)
    c.stages = "patches,encoder,embeddings"
    launch.launch(c.to_dict(), tmp_path / "run", table.STAGES)
    facts = json.loads((tmp_path / "run/patches/done.json").read_text())["facts"]
    assert facts["alignment"]["own"] > facts["alignment"]["shuffled"]
    found = store.Store(tmp_path / "run/embeddings")
    assert len(found) == facts["records"]["train"] > 100
    bag = Clam.read(folder / "cmu_small_region.h5")
    rows = {tuple(vector) for vector in bag.features.round(4).tolist()}
    assert all(
        tuple(found[i]["embedding"].round(4).tolist()) in rows for i in range(0, len(found), 29)
    )


def test_runs_without_an_encoder_or_slides_are_refused_in_a_line(workdir, tmp_path):
    values = json.loads(json.dumps(stored_config.of_run(workdir)))
    config = schema.build(run_config.RunConfig, values)
    with pytest.raises(schema.ConfigError, match=r"mpp ≥ 0 and 0 ≤ min_tissue ≤ 1, got 0 and 2"):
        schema.build(
            run_config.RunConfig,
            values | {"features": values["features"] | {"min_tissue": 2.0}},
        )
    Image.new("RGB", (PX, PX)).save(tmp_path / "patch.png")
    data = dataclasses.replace(config.data, slides=f"folder:{tmp_path}")
    listed = stage.Context(dataclasses.replace(config, data=data), workdir, None)
    with pytest.raises(schema.ConfigError, match=r"features\.slides must name slides"):
        features.run(listed.at("features", tmp_path / "features"))


def test_a_bag_is_a_table_of_anndata_where_asked_for(bags, tmp_path):
    anndata = pytest.importorskip("anndata")
    one, two = drawn(tmp_path / "generate/one", 1), drawn(tmp_path / "generate/two", 2)
    asked = {"slides": str(tmp_path / "generate/*/image.tif"), "min_tissue": 0.0}
    folder, _ = bags(**asked)
    tables = folder.parent / "h5ad_files"
    assert not tables.exists()
    # Of bags that were there already.
    _, results = bags(**asked, formats=["h5", "h5ad"])
    assert [entry["was_there"] for entry in results["slides"]] == [True, True]
    table, bag = anndata.read_h5ad(tables / "one.h5ad"), Clam.read(folder / "one.h5")
    np.testing.assert_array_equal(table.X, bag.features)
    assert table.X.dtype == np.float32
    np.testing.assert_array_equal(table.obsm["spatial"], bag.coords + PX / 2)
    assert table.obs_names[:2].tolist() == ["0_0", f"{PX}_0"]
    about = {key: table.uns[key] for key in ("mpp", "patch_size", "patch_size_level0", "slide")}
    assert about == {"mpp": 0.5, "patch_size": PX, "patch_size_level0": PX, "slide": str(one)}
    with h5py.File(folder / "one.h5") as file:
        assert table.uns["encoder"] == file["features"].attrs["encoder"]
    # What is there stays, until its slide changes.
    before = {path.name: path.stat().st_mtime_ns for path in tables.iterdir()}
    shutil.copy(one, two)
    bags(**asked, formats=["h5", "h5ad"])
    assert (tables / "one.h5ad").stat().st_mtime_ns == before["one.h5ad"]
    again = anndata.read_h5ad(tables / "two.h5ad")
    np.testing.assert_array_equal(again.X, table.X)


def test_a_table_of_another_origin_is_not_replaced(bags, tmp_path):
    pytest.importorskip("anndata")
    (tmp_path / "bags/h5ad_files").mkdir(parents=True)
    mine = tmp_path / "bags/h5ad_files/one.h5ad"
    with h5py.File(mine, "w") as file:
        file["X"] = np.zeros(3)
    before = mine.read_bytes()
    drawn(tmp_path / "generate/one", 1), drawn(tmp_path / "generate/two", 2)
    asked = {"slides": str(tmp_path / "generate/*/image.tif"), "min_tissue": 0.0}
    _, results = bags(**asked, formats=["h5", "h5ad"])
    (refused,) = results["not_used"]
    assert "one.h5ad must be free or a table of" in refused["reason"]
    assert mine.read_bytes() == before
    assert [entry["name"] for entry in results["slides"]] == ["two"]


@pytest.mark.parametrize(
    ("formats", "message"),
    [(["h5ad"], "must have h5, of which"), (["h5", "csv"], r"formats\[1\] must be one of")],
)
def test_formats_that_cannot_be_are_refused(bags, formats, message):
    with pytest.raises(schema.ConfigError, match=message):
        bags(formats=formats)
