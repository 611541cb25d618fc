"""Several magnifications: which examples of which level are seen when, and where they are cut."""

import dataclasses
import itertools

import numpy as np
import pytest
import small_configs
from PIL import Image

from ssldiff_jax import slides
from ssldiff_jax.core import schema
from ssldiff_jax.data import archive, crop_reader, crops, loader, plan, shuffle, store
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import records as records_lib

CONFIG = loader.LoaderConfig(num_threads=2, prefetch=4)
SIDE = 32
COUNTS = (7, 3, 1)
"""Records of three levels: each coarser one has fewer."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Records of three levels, whose pixels tell which one they are."""
    folder = tmp_path_factory.mktemp("levels")
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(folder / "slide.png")
    slides.open_slide(folder / "slide.png", mpp=0.5).close()
    about = {"slide": "slide.png", "case": "slide", "label": "", "mpp": 0.5}
    with archive.new_entry(folder / "entry", **about) as (writer, _):
        for level, count in enumerate(COUNTS):
            for number in range(count):
                square = plan.Square(0, SIDE * number, 0, SIDE, SIDE)
                grey = 20 + 80 * level + 8 * number
                pixels = np.full((SIDE, SIDE, 3), grey, np.uint8)
                writer.add(plan.split_at("train", 2.0**level), square, pixels, quality=95)
        writer.close()
    archive.publish(folder / "records", {0: archive.Entry.read(folder / "entry")})
    names = [plan.split_at("train", 2.0**level) for level in range(len(COUNTS))]
    return tuple(records_lib.RecordSource(folder / "records", name) for name in names)


def of_grey(images):
    """(level, number) of each image."""
    grey = images.reshape(len(images), -1).mean(axis=1)
    level = ((grey - 20 + 4) // 80).astype(int)
    return level, np.round((grey - 20 - 80 * level) / 8).astype(int)


def first(iterable, count):
    return list(itertools.islice(iterable, count))


def batches(sources, *, batch_size=6, seed=0):
    return loader.patch_batches(
        *sources, side=16, dihedral=False, batch_size=batch_size, seed=seed, config=CONFIG
    )


def test_levels_are_seen_equally_often_however_many_records_they_have(sources):
    images = np.concatenate([b["pixels"] for b in first(batches(sources), 14)])
    level, number = of_grey(images)
    assert len(level) == 84
    # Any three in a row are of three levels.
    assert (np.sort(level.reshape(-1, 3), axis=1) == [0, 1, 2]).all()
    for which, count in enumerate(COUNTS):
        seen = number[level == which]
        assert len(seen) == 28
        # Within a level epoch follows epoch: each of its records once, in another order.
        epochs = seen[: len(seen) // count * count].reshape(-1, count)
        assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    orders = number[level == 0].reshape(-1, 7)
    assert not (orders == orders[0]).all()


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_the_levels_of_every_batch(sources, monkeypatch, hosts):
    whole = np.concatenate([b["pixels"] for b in first(batches(sources), 4)])
    shares = []
    for host in range(hosts):
        monkeypatch.setattr(loader.jax, "process_index", lambda host=host: host)
        monkeypatch.setattr(loader.jax, "process_count", lambda: hosts)
        shares.append(first(batches(sources), 4))
    together = np.concatenate(
        [np.stack([s[i]["pixels"] for s in shares], 1).reshape(6, 16, 16, 3) for i in range(4)]
    )
    np.testing.assert_array_equal(together, whole)


def test_one_level_is_seen_as_it_was_without_levels(sources):
    """The stream of one level is that of its seed alone: older trainings go on as they were."""
    images = np.concatenate([b["pixels"] for b in first(batches(sources[:1], seed=5), 3)])
    expected = shuffle.examples_at(np.arange(18), COUNTS[0], 5)
    np.testing.assert_array_equal(of_grey(images)[1], expected)


def test_stored_examples_of_levels_are_seen_equally_often(tmp_path):
    fields = (store.Field("embedding", (1,), "float32"), store.Field("level", (1,), "int32"))
    writer = store.StoreWriter(tmp_path, fields)
    level = np.repeat(np.arange(3), COUNTS)[:, None]
    writer.append(embedding=np.arange(11, dtype=np.float32)[:, None], level=level)
    writer.close()
    found = loader.cached_batches(
        store.Store(tmp_path), batch_size=9, seed=1, config=CONFIG, counts=COUNTS
    )
    seen = first(found, 7)
    levels = np.concatenate([batch["level"][:, 0] for batch in seen])
    assert np.bincount(levels).tolist() == [21, 21, 21]
    numbers = np.concatenate([batch["embedding"][:, 0] for batch in seen])
    assert sorted(numbers[levels == 0][:7]) == list(range(7))
    assert set(numbers[levels == 2]) == {10}
    with pytest.raises(ValueError, match="stores must be aligned, got 10 examples"):
        first(
            loader.cached_batches(
                store.Store(tmp_path), batch_size=9, seed=1, config=CONFIG, counts=(7, 3)
            ),
            1,
        )


def crop_config(**changes):
    values = {
        "patch_px": 8, "num_crops": 0, "context_px": 2, "dihedral": True, "condition_on": "patch"
    }  # fmt: skip
    return crops.CropConfig(**values | changes)


@pytest.mark.parametrize(
    ("num_crops", "expected"), [(9, (3, 3, 3)), (10, (4, 3, 3)), (11, (4, 4, 3)), (0, COUNTS)]
)
def test_as_many_crops_are_cached_of_each_level(num_crops, expected):
    config = crop_config(num_crops=num_crops)
    tables = [
        crops.CropTable(count, SIDE, config.of_level(i, 3), 0) for i, count in enumerate(COUNTS)
    ]
    assert tuple(map(len, tables)) == expected
    assert config.of_level(0, 1) == config


@pytest.mark.parametrize("condition_on", ["patch", "cells"])
def test_crops_of_levels_are_read_by_one_number(sources, condition_on):
    config = crop_config(num_crops=12, condition_on=condition_on)
    readers = [
        crop_reader.CropReader(s, crops.CropTable(len(s), SIDE, config.of_level(i, 3), i))
        for i, s in enumerate(sources)
    ]
    reader = crop_reader.LevelReader(tuple(readers))
    assert (len(reader), reader.counts) == (12, (4, 4, 4))
    numbers = [11, 0, 3, 4, 8, 0]
    expected = [(2, 3), (0, 0), (0, 3), (1, 0), (2, 0), (0, 0)]
    assert reader.levels(numbers).tolist() == [level for level, _ in expected]
    for name in ("patches", "with_context"):
        one_by_one = [getattr(readers[level], name)([n])[0] for level, n in expected]
        np.testing.assert_array_equal(getattr(reader, name)(numbers), np.stack(one_by_one))
        assert of_grey(getattr(reader, name)(numbers))[0].tolist() == [i for i, _ in expected]
    if condition_on == "cells":
        cells, corners = reader.cells(numbers)
        for i, (level, number) in enumerate(expected):
            own, corner = readers[level].cells([number])
            np.testing.assert_array_equal(cells[i], own[0])
            np.testing.assert_array_equal(corners[i], corner[0])


def region(top, left, rows, cols, px=64):
    return plan.Reference.region(plan.Square(3, top, left, rows * px, cols * px), px)


@pytest.mark.parametrize("scale", [2.0, 4.0, 3.0])
@pytest.mark.parametrize("corner", [(0, 0), (37, 101), (2455, 8)])
def test_a_coarser_reference_is_of_the_same_ground(scale, corner):
    whole = region(*corner, 8, 9)
    coarse = whole.at(scale)
    assert (coarse.rows, coarse.cols) == (int(8 / scale), int(9 / scale))
    first_, last = coarse.cells[0], coarse.cells[-1]
    for at, start in zip((first_.top, first_.left), corner, strict=True):
        assert start - scale < at * scale <= start
    ends = (last.top + 64) * scale, (last.left + 64) * scale
    for end, start, count in zip(ends, corner, (8, 9), strict=True):
        assert end <= start + count * 64
    assert {cell.height for cell in coarse.cells} == {64}


def test_regions_too_small_for_a_level_and_pages_have_none():
    assert region(0, 0, 3, 8).at(2.0) is None
    assert region(0, 0, 4, 4).at(2.0).rows == 2
    page = dataclasses.replace(region(0, 0, 8, 8), kind="page")
    assert page.at(2.0) is None


@pytest.mark.parametrize(
    ("levels", "num_crops", "message"),
    [
        ((1.0, 8.0), 0, r"config.data.levels must be 1 or of those that records have, "
         r"config.data.records.scales=\(2.0, 4.0\), got 8$"),
        ((2.0, 4.0), 0, r"config.data.levels must begin with 1 and grow, .* got \(2.0, 4.0\)$"),
        ((1.0, 4.0, 2.0), 0, "must begin with 1 and grow"),
        ((1.0, 2.0, 2.0), 0, "must begin with 1 and grow"),
        ((), 0, "must begin with 1 and grow"),
        ((1.0, 2.0, 4.0), 2, "num_crops must be 0, or one or more of each of 3 levels, got 2$"),
    ],
)  # fmt: skip
def test_levels_that_records_do_not_have_are_refused(levels, num_crops, message):
    data = small_configs.section("data")
    records = dataclasses.replace(data.records, scales=(2.0, 4.0))
    crops_ = dataclasses.replace(data.crops, num_crops=num_crops)
    with pytest.raises(schema.ConfigError, match=message):
        dataclasses.replace(data, levels=levels, records=records, crops=crops_)


def test_data_of_a_level_are_read_at_its_scale():
    data: data_config.DataConfig = small_configs.section("data")
    assert data.at(4.0).patch_mpp == pytest.approx(2.0)
    assert data.at(1.0) == data
