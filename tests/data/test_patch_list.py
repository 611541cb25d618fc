"""Patches that are already cut: files by name, one array, TFDS; and lists nobody vouches for."""

import io
import os
import pathlib
import pickle

import numpy as np
import pytest
import small_configs
import tensorflow_datasets as tfds
from PIL import Image

from configs import default
from ssldiff_jax.core import schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import list_source, patch_list, tfds_images

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
NAMES = [f"TCGA-AA-000{i}/a_{i}.png" for i in range(5)]


@pytest.fixture
def folder(tmp_path):
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        path = tmp_path / "pyramid" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
    return tmp_path


@pytest.mark.parametrize(
    "names",
    [
        np.array(NAMES),
        np.array(NAMES, dtype=object),
        np.array([pathlib.PurePosixPath(n) for n in NAMES], dtype=object),
    ],
    ids=["strings", "objects", "paths"],
)
def test_files_by_their_names(folder, names):
    np.save(folder / "list.npy", names, allow_pickle=True)
    found = patch_list.open_list(str(folder / "list.npy"))
    assert len(found) == 5
    assert [found.name(i) for i in range(5)] == NAMES
    assert found.shape(2) == (8, 8)
    for i in range(5):
        np.testing.assert_array_equal(found.read(i), PIXELS[i])


def test_an_array_of_pixels(tmp_path):
    np.save(tmp_path / "p.npy", PIXELS)
    found = patch_list.open_list(str(tmp_path / "p.npy"))
    assert len(found) == 5
    assert found.shape(0) == (8, 8)
    assert len({found.name(i) for i in range(5)}) == 5
    np.testing.assert_array_equal(found.read(3), PIXELS[3])


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("case", r"names no cases: .*by must be 'area', got 'case'"),
        ("columns", r"is a list, which has no columns: .*by must be 'area', got 'columns'"),
    ],
)
def test_an_array_of_pixels_has_neither_cases_nor_columns(tmp_path, by, message):
    np.save(tmp_path / "p.npy", PIXELS)
    data = default.get_config().data
    data.records.record_px = data.records.stride_px = data.crops.patch_px = 8
    data.holdout.by = by
    data = schema.build(data_config.DataConfig, data.to_dict())
    with pytest.raises(ValueError, match=message):
        list_source.read_source(data, patch_list.open_list(str(tmp_path / "p.npy")))


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_list_that_calls_code_runs_nothing(tmp_path):
    path, mark = tmp_path / "list.npy", tmp_path / "mark"
    np.save(path, np.array([Attack(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(patch_list.PatchListError, match=r"list\.npy: expected names of files"):
        patch_list.open_list(str(path))
    assert not mark.exists()
    # As the whole of what is pickled, too.
    head = path.read_bytes().partition(b"\n")[0] + b"\n"
    path.write_bytes(head + pickle.dumps(Attack(mark)))
    with pytest.raises(patch_list.PatchListError, match=r"list\.npy: expected one row of names"):
        patch_list.open_list(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.zeros((3, 4), np.float32),
            r"expected patches as uint8 \(N, H, W, 3\).*float32 \(3, 4\)",
        ),
        (np.zeros((0, 8, 8, 3), np.uint8), "got an empty list"),
        (np.array([1, 2], dtype=object), "expected names of files, got int"),
        (np.array([["a"], ["b"]], dtype=object), "expected one row of names"),
        (np.array(["nothing.png"]), "names nothing.png, which is neither beside it nor"),
    ],
)
def test_other_arrays_are_refused(tmp_path, value, message):
    np.save(tmp_path / "x.npy", value, allow_pickle=True)
    with pytest.raises(patch_list.PatchListError, match=r"x\.npy.*" + message):
        patch_list.open_list(str(tmp_path / "x.npy"))


def test_damaged_lists_and_images_are_one_line(folder):
    path = folder / "list.npy"
    np.save(path, np.array(NAMES, dtype=object), allow_pickle=True)
    whole = path.read_bytes()
    for length in (0, 5, 60, 200):
        path.write_bytes(whole[:length])
        with pytest.raises(patch_list.PatchListError, match=r"list\.npy") as caught:
            patch_list.open_list(str(path))
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    (folder / "pyramid" / NAMES[1]).write_text("no image")
    found = patch_list.open_list(str(path))
    with pytest.raises(patch_list.PatchListError, match=r"a_1\.png"):
        found.shape(1)
    with pytest.raises(patch_list.PatchListError, match="no such file"):
        patch_list.open_list(str(folder / "none.npy"))


class Tiles(tfds.core.GeneratorBasedBuilder):
    """A small data set of two splits, as TFDS keeps it."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(8, 8, 3), encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "filename": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        parts = {"train": range(3), "test": range(3, 5)}
        return {name: self._generate_examples(numbers) for name, numbers in parts.items()}

    def _generate_examples(self, numbers):
        for i in numbers:
            buffer = io.BytesIO()
            profile = {"icc_profile": b"a profile"} if i == 2 else {}
            Image.fromarray(PIXELS[i]).save(buffer, "PNG", **profile)
            buffer.seek(0)
            yield i, {"image": buffer, "filename": NAMES[i]}


def test_a_data_set_gives_all_its_splits(tmp_path, monkeypatch):
    make = tfds.builder
    here = lambda name, **options: make(name, data_dir=str(tmp_path), **options)
    monkeypatch.setattr(tfds_images.tfds, "builder", here)
    found = patch_list.open_list("tfds:tiles")
    assert len(found) == 5
    assert found.largest_side == 8
    by_name = {found.name(i): found.read(i) for i in range(5)}
    assert set(by_name) == set(NAMES)
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        np.testing.assert_array_equal(by_name[name], pixels)
    assert found.shape(4) == (8, 8)
    # By its profile, the one image that has one; what the profile does is another test's.
    invert = lambda image: Image.eval(image, lambda value: 255 - value)
    monkeypatch.setattr(tfds_images.colour.ToSrgb, "from_bytes", lambda profile: invert)
    found = patch_list.open_list("tfds:tiles", small_configs.section("data.reading", colour="srgb"))
    for i in range(5):
        stored = by_name[found.name(i)]
        expected = 255 - stored if found.name(i) == NAMES[2] else stored
        np.testing.assert_array_equal(found.read(i), expected)
    with pytest.raises(patch_list.PatchListError, match="tfds:tiles: expected rasters for"):
        patch_list.open_list("tfds:tiles", small_configs.section("data.reading", bands=(1,)))


def test_an_unknown_data_set_is_one_line():
    with pytest.raises(
        patch_list.PatchListError, match=r"a TFDS data set.*got no_such_set"
    ) as caught:
        patch_list.open_list("tfds:no_such_set")
    assert "\n" not in str(caught.value)
