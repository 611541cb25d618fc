"""What patches show: land cover is measured in bands that records do not have."""

import tracemalloc

import numpy as np
import pytest
import rasterio

from configs import naip, tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs import artifacts, launch, patch_samples, pixel_labels
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.runs.workdir import folders
from ssldiff_jax.stages import table

COVER = {"water": (60, 90, 80, 20), "vegetation": (60, 90, 60, 200), "bare": (150, 140, 120, 150)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A run's records of a scene of four bands: thirds of water, plants and bare ground."""
    folder = tmp_path_factory.mktemp("scene")
    values = np.zeros((4, 768, 576), np.uint8)
    for number, bands in enumerate(COVER.values()):
        values[:, :, number * 192 : (number + 1) * 192] = np.array(bands)[:, None, None]
    values += np.random.default_rng(0).integers(0, 5, values.shape, np.uint8)
    transform = rasterio.transform.from_origin(5e5, 5e6, 1.0, 1.0)
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", width=576, height=768, count=4,
                       dtype="uint8", crs="EPSG:32614", transform=transform) as file:  # fmt: skip
        file.write(values)
    config = tiny.get_config()
    naip.every_square_counts(config.data)
    config.data.slides = str(folder / "scene.tif")
    config.stages = "patches"
    launch.launch(config.to_dict(), folder / "run", table.STAGES)
    built = schema.build(run_config.RunConfig, config.to_dict())
    return artifacts.Artifacts(built, folders.Folders(folder / "run"))


def test_patches_are_classed_by_what_most_of_them_shows(scene):
    sample = patch_samples.Sample.choose(scene.patches("train"), 40)
    found = sample.classes(pixel_labels.PixelLabels("landcover", scene.config.data))
    names = list(COVER)
    for index, name in enumerate(found):
        square, pixels = sample.patch(index)
        parts = [
            np.clip(
                min(square.left + square.width, 192 * (k + 1)) - max(square.left, 192 * k), 0, None
            )
            for k in range(3)
        ]
        assert name == names[int(np.argmax(parts))]
        assert pixels.shape == (square.height, square.width, 3)
    assert len(set(found)) == 3


def test_what_was_not_recorded_is_refused(scene):
    sample = patch_samples.Sample.choose(scene.patches("train"), 3)
    with pytest.raises(schema.ConfigError, match="3 of 3 records of train without one"):
        sample.classes(None)


def test_a_sample_of_270_million_records_takes_the_memory_of_the_sample(tmp_path):
    count = 270_000_000
    places = np.lib.format.open_memmap(tmp_path / "places.npy", "w+", np.int32, (count, 4))

    class Records:
        def __init__(self, places):
            self.places = places

        def __len__(self):
            return len(self.places)

    source = patch_samples.RecordPatches(Records(places), "train", patch_px=64, record_px=96)
    tracemalloc.start()
    sample = patch_samples.Sample.choose(source, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6
    assert len(set(sample.places[:, 0].tolist())) == 1000
    assert set(sample.places[:, 1].tolist()) == {16}


def test_all_patches_are_those_of_every_record(scene):
    source = scene.patches("train")
    count = len(source.records)
    every = patch_samples.Sample.at_most(source, 0)
    assert len(every) == len(source.shifts) * count
    drawn = patch_samples.Sample.choose(source, len(every))
    assert sorted(map(tuple, every.places.tolist())) == sorted(map(tuple, drawn.places.tolist()))
    slides = source.records.places[every.places[:, 0], 0]
    assert (np.diff(slides) >= 0).all()
    assert len(patch_samples.Sample.at_most(source, 10**6)) == len(every)
    few = patch_samples.Sample.at_most(source, 3)
    assert (len(few), few.part_of_records) == (3, 3 / count)
    assert every.part_of_records == 1
    single = np.stack([every.patch(i)[1] for i in range(2, 5)])
    np.testing.assert_array_equal(every.pixels(2, 5), single)


def test_patches_know_their_cases(scene):
    sample = patch_samples.Sample.choose(scene.patches("test"), 5)
    assert sample.cases() == ["scene"] * 5


def test_samples_are_of_different_places_and_slides_lie_together(scene):
    source = scene.patches("train")
    count = len(source.records)
    sample = patch_samples.Sample.choose(source, count + 5)
    assert len({tuple(place) for place in sample.places.tolist()}) == count + 5
    numbers = sample.places[:, 0].tolist()
    slides = source.records.places[numbers, 0]
    assert (np.diff(slides) >= 0).all()
    assert set(numbers) == set(range(count))
