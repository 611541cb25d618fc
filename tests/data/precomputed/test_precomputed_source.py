"""Runs on embeddings computed elsewhere: of slides, as CLAM writes them, and of lists."""

import json
import os

import h5py
import numpy as np
import pytest
from PIL import Image

from configs import tiny
from ssldiff_jax import slides
from ssldiff_jax.data import demo_slide, store
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.evaluation.metrics import halves
from ssldiff_jax.generation import generator as generator_lib
from ssldiff_jax.runs import launch
from ssldiff_jax.stages import table

PX, CONTEXT, DIM = 64, 8, 24


def embed(patches):
    """An encoder of ours that the run never sees: colours on a grid, and fine contrast."""
    x = np.asarray(patches, np.float32) / 255
    blocks = x.reshape(len(x), 4, PX // 4, 4, PX // 4, 3)
    features = np.concatenate(
        [blocks.mean(axis=(2, 4)).reshape(len(x), -1), blocks.std(axis=(2, 4)).mean(axis=(1, 2))], 1
    )
    return (features @ np.random.default_rng(0).normal(size=(51, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def tiles():
    """(corners, patches) of the real slide's tissue, row by row."""
    slide = slides.open_slide(demo_slide.demo_slide())
    height, width = slide.shape
    pixels = slide.read_region(0, 0, height, width, mpp=slide.mpp)
    found = [
        ((x, y), pixels[y : y + PX, x : x + PX])
        for y in range(0, height - PX + 1, PX)
        for x in range(0, width - PX + 1, PX)
    ]
    found = [(corner, patch) for corner, patch in found if patch.mean() < 225]
    corners, patches = zip(*found, strict=True)
    return np.array(corners), np.stack(patches)


def config(*changes):
    """configs/tiny.py with what embeddings computed elsewhere ask for."""
    c = tiny.get_config()
    c.data.records.record_px = PX + 2 * CONTEXT
    c.data.crops.dihedral, c.data.crops.num_crops = False, 0
    c.encoder.model.shift_px = 0
    c.autoencoder.loss.perceptual_weight = 0.0
    c.sample.conditioning = "interpolated"
    c.stages = "patches,encoder,embeddings"
    for key, value in changes:
        c.update_from_flattened_dict({key: value})
    return c.to_dict()


def write(folder, corners, embeddings, **attributes):
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "cmu_small_region.h5", "w") as file:
        file["coords"], file["features"] = corners, embeddings
        file["coords"].attrs.update({"patch_size": PX} | attributes)
    return ("embeddings.source", str(folder))


def test_every_record_has_the_embedding_of_its_own_patch(tmp_path, tiles):
    corners, patches = tiles
    source = write(tmp_path / "h5", corners, embed(patches))
    launch.launch(config(source), tmp_path / "run", table.STAGES)
    facts = json.loads((tmp_path / "run/patches/done.json").read_text())["facts"]
    assert facts["alignment"]["own"] > 0.5 > facts["alignment"]["shuffled"]
    records = records_lib.RecordSource(tmp_path / "run/patches/records", "train")
    found = store.Store(tmp_path / "run/embeddings")
    assert len(records) == len(found) == facts["records"]["train"] > 100
    for i in range(0, len(found), 17):
        inner = records[i][CONTEXT:-CONTEXT, CONTEXT:-CONTEXT]
        # JPEG stands between the two.
        np.testing.assert_allclose(found[i]["embedding"], embed(inner[None])[0], atol=0.15)
    for i in range(2):
        image = np.asarray(Image.open(tmp_path / f"run/patches/region_{i}.png"))
        grid = np.load(tmp_path / f"run/embeddings/region_{i}.npy")
        cells = image.reshape(2, PX, 2, PX, 3).swapaxes(1, 2).reshape(4, PX, PX, 3)
        np.testing.assert_allclose(grid.reshape(4, DIM), embed(cells), atol=1e-4)


@pytest.mark.parametrize("order", ["reversed", "moved by one", "shuffled"])
def test_another_order_is_refused(tmp_path, tiles, order):
    corners, patches = tiles
    values = embed(patches)
    values = {
        "reversed": values[::-1],
        "moved by one": np.roll(values, 1, axis=0),
        "shuffled": np.random.default_rng(1).permutation(values),
    }[order]
    source = write(tmp_path / "h5", corners, values)
    with pytest.raises(
        ValueError, match=r"cmu_small_region\.h5: features must have its rows in the order"
    ):
        launch.launch(config(source), tmp_path / "run", table.STAGES)
    assert not (tmp_path / "run/patches/records").exists()
    trusted = ("embeddings.check", "none"), ("stages", "patches")
    launch.launch(config(source, *trusted), tmp_path / "trusted", table.STAGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, e: (c[:, ::-1], e, {}), r"coords must lie inside.*2220 × 2967 px, x first"),
        (lambda c, e: (c * 2, e, {}), r"coords must lie inside"),
        (lambda c, e: (c, e[:-1], {}), r"coords must be as many as features, got \d+ and \d+"),
        (lambda c, e: (c, e, {"patch_size": 256}), r"patches must have 64 px .*, got 256"),
    ],
)
def test_places_that_do_not_fit_are_named(tmp_path, tiles, change, message):
    corners, patches = tiles
    corners, values, attributes = change(corners, embed(patches))
    source = write(tmp_path / "h5", corners, values, **attributes)
    with pytest.raises(ValueError, match=r"cmu_small_region\.h5.*" + message):
        launch.launch(config(source), tmp_path / "run", table.STAGES)


def test_embeddings_that_change_between_stages_are_refused(tmp_path, tiles):
    corners, patches = tiles
    source = write(tmp_path / "h5", corners, embed(patches))
    launch.launch(config(source, ("stages", "patches")), tmp_path / "run", table.STAGES)
    write(tmp_path / "again", corners, embed(patches)[::-1])
    path = tmp_path / "again/cmu_small_region.h5"
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 10))
    path.replace(tmp_path / "h5/cmu_small_region.h5")
    with pytest.raises(ValueError, match="changed after its rows were compared with"):
        launch.launch(
            config(source, ("stages", "encoder,embeddings")), tmp_path / "run", table.STAGES
        )


def test_places_off_the_lattice_by_rounding_still_make_regions(tmp_path, tiles):
    """One patch twice, and all a pixel or two astray."""
    corners, patches = tiles
    moved = np.clip(corners + np.random.default_rng(0).integers(0, 3, corners.shape), 0, None)
    moved, again = np.concatenate([moved, moved[:1]]), np.concatenate([patches, patches[:1]])
    source = write(tmp_path / "h5", moved, embed(again))
    launch.launch(config(source), tmp_path / "run", table.STAGES)
    regions = json.loads((tmp_path / "run/patches/regions.json").read_text())
    assert len({tuple(cell) for region in regions for cell in region["cells"]}) == 8
    assert all(row >= 0 for region in regions for _, row in region["cells"])


def test_a_slide_without_embeddings_is_named(tmp_path, tiles):
    source = write(tmp_path / "h5", *tiles[:1], embed(tiles[1]))
    (tmp_path / "h5/cmu_small_region.h5").rename(tmp_path / "h5/another.h5")
    with pytest.raises(ValueError, match=r"named as the slides are.*cmu_small_region\.svs"):
        launch.launch(config(source), tmp_path / "run", table.STAGES)


def test_what_needs_an_encoder_is_refused_at_once(tmp_path):
    wrong = ("sample.conditioning", "dense"), ("data.crops.dihedral", True)
    wrong += (("autoencoder.loss.perceptual_weight", 1.0), ("data.crops.num_crops", 5))
    with pytest.raises(ValueError, match="no encoder") as caught:
        launch.launch(config(("embeddings.source", "x"), *wrong), tmp_path / "run", table.STAGES)
    for key in ("num_crops=5", "dihedral=True", "conditioning='dense'", "perceptual='encoder'"):
        assert key in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def listed(tmp_path_factory, tiles):
    """Image files, the list of their names, and a file of two sorts of embeddings."""
    folder = tmp_path_factory.mktemp("list")
    corners, patches = tiles
    names = [f"TCGA-AA-{y // 256:04d}/{y}_{x}.png" for x, y in corners]
    for name, patch in zip(names, patches, strict=True):
        (folder / "pyramid" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patch).save(folder / "pyramid" / name)
    np.save(folder / "patch_list_20x.npy", np.array(names, dtype=object), allow_pickle=True)
    with h5py.File(folder / "features.h5", "w") as file:
        file["feat_20x"], file["feat_5x"] = embed(patches), np.zeros((3, 7), np.float32)
    return folder


def list_config(folder, *changes):
    return config(
        ("data.slides", str(folder / "patch_list_20x.npy")),
        ("data.records.record_px", PX),
        ("data.crops.context_px", 0),
        ("data.holdout.by", "case"),
        ("judge.model.shift_px", 0),
        ("embeddings.source", str(folder / "features.h5")),
        ("embeddings.dataset", "feat_20x"),
        *changes,
    )


def test_a_list_that_is_longer_than_its_embeddings(tmp_path, listed):
    wrong = ("embeddings.dataset", "feat_5x")
    with pytest.raises(
        ValueError, match=r"feat_5x must have a row for each.*got 3 rows and \d+ pa"
    ):
        launch.launch(list_config(listed, wrong), tmp_path / "run", table.STAGES)


def test_a_run_on_a_list_of_patches(tmp_path, listed, tiles, monkeypatch):
    """Every stage: no encoder, no region, figures by the judge alone; the floor of the Fréchet
    distance is between cases."""
    asked, of_cases = [], halves.Halves.of_cases
    spy = lambda cases: asked.append(list(cases)) or of_cases(cases)
    monkeypatch.setattr(halves.Halves, "of_cases", spy)
    launch.launch(list_config(listed, ("stages", "all")), tmp_path, table.STAGES)
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["embedding_dim"] == DIM
    assert metrics["encoder"] is metrics["large_image"] is metrics["crop_fd_uncorrected"] is None
    judge = metrics["judge"]
    assert judge["num_cells"] == 8
    assert min(judge["patch_fd_uncorrected"], judge["fd_floor_uncorrected"]) > 0
    assert -1 <= judge["embedding_similarity"]["mean"] <= 1
    page = (tmp_path / "report/index.html").read_text()
    assert "held-out patches of" in page
    assert "Layout correlation" not in page

    # No case is on both sides.
    cases = {}
    pages = json.loads((tmp_path / "patches/regions.json").read_text())
    names = np.load(listed / "patch_list_20x.npy", allow_pickle=True)
    for split in ("train", "test"):
        source = records_lib.RecordSource(tmp_path / "patches/records", split)
        cases[split] = {names[source.place(i)[0]].split("/")[0] for i in range(len(source))}
    assert cases["train"].isdisjoint(cases["test"])
    of_cells = [names[slide].split("/")[0] for page in pages for slide, _ in page["cells"]]
    assert [[case.split("/")[0] for case in found] for found in asked] == [of_cells]

    model = generator_lib.Generator.load(tmp_path)
    grid = np.load(tmp_path / "embeddings/region_0.npy")
    assert model.generate(grid, size=(96, 128)).image.shape == (96, 128, 3)
    with pytest.raises(ValueError, match="embeddings computed elsewhere"):
        model.embed(tiles[1][0])
