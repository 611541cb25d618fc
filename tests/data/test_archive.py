import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from ssldiff_jax.data import archive, plan, records, shuffle
from ssldiff_jax.formats import atomic, shards

SIDE = 16
ABOUT = {"slide": "ä b.svs", "case": "ä", "label": "", "mpp": 0.5}


def pixels(number):
    return np.full((SIDE, SIDE, 3), 3 * number + 20, np.uint8)


def write(folder, count, **about):
    """An entry of two splits, `count` records and one."""
    with archive.new_entry(folder, **{**ABOUT, **about}) as (writer, _):
        for i in range(count):
            writer.add("train", plan.Square(0, i, 2 * i, SIDE, SIDE, 5), pixels(i), 95)
        writer.add("test", plan.Square(0, 99, 0, SIDE, SIDE), pixels(60), 95, mpp=2.0)
        writer.close(identity=folder.name)
    return archive.Entry.read(folder)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(archive, "SHARD_RECORDS", 4)


@pytest.fixture
def published(tmp_path, small_shards):
    entries = {3: write(tmp_path / "a", 10), 8: write(tmp_path / "b", 3)}
    return tmp_path / "records", archive.publish(tmp_path / "records", entries), entries


def test_shards_are_bounded_and_an_entry_knows_their_hashes(published):
    _, counts, entries = published
    assert counts == {"train": 13, "test": 2}
    assert [shard.count for shard in entries[3].shards["train"]] == [4, 4, 2]
    for shard in entries[3].shards["train"]:
        path = entries[3].folder / shard.file
        assert (shard.bytes, shard.sha256) == (path.stat().st_size, shards.sha256(path))


def test_records_are_in_the_order_of_slides_and_rows(published):
    source = records.RecordSource(published[0], "train")
    assert len(source) == 13
    expected = [(3, i, 2 * i, 5) for i in range(10)] + [(8, i, 2 * i, 5) for i in range(3)]
    assert [tuple(place) for place in source.places.tolist()] == expected
    assert source.slides.tolist() == [[3, 10], [8, 3]]
    for number, value in ((0, 0), (4, 4), (9, 9), (10, 0), (12, 2)):  # at both ends of shards
        assert np.abs(source[number].astype(int) - pixels(value)).max() <= 2
    assert source.place(11) == (8, 5)


def test_tfds_reads_the_same(published):
    builder = tfds.builder_from_directory(published[0])
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 13, "test": 2,
    }  # fmt: skip
    found = builder.as_data_source("train")[4]
    assert np.abs(found["image"].astype(int) - pixels(4)).max() <= 2
    assert (found["slide"].decode(), found["case"].decode()) == ("ä b.svs", "ä")
    assert (found["top"], found["left"], found["row"], found["mpp"]) == (4, 8, 5, 0.5)
    assert builder.as_data_source("test")[0]["mpp"] == 2.0


def test_the_same_records_are_the_same_bytes(tmp_path, small_shards):
    a, b = (write(tmp_path / name, 9) for name in "ab")
    assert a.shards == b.shards


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_an_entry_with_a_harmed_shard_is_none(tmp_path, harm):
    entry = write(tmp_path / "a", 5)
    path = entry.folder / entry.shards["train"][0].file
    if harm == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    assert archive.Entry.read(entry.folder) is None


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail():
        with archive.new_entry(tmp_path / "a", **ABOUT) as (writer, _):
            writer.add("train", plan.Square(0, 0, 0, SIDE, SIDE), pixels(0), 95)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_of_one_entry_the_first_stays(tmp_path):
    with archive.new_entry(tmp_path / "a", **ABOUT) as (writer, _):
        writer.add("train", plan.Square(0, 0, 0, SIDE, SIDE), pixels(0), 95)
        writer.close(identity="late")
        write(tmp_path / "a", 2)
    assert archive.Entry.read(tmp_path / "a").facts["identity"] == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_damage_is_named(published):
    folder, *_ = published
    split = atomic.read_json(folder / "manifest.json")["splits"]["train"]
    assert list(archive.damaged(folder)) == []
    path = folder / split["shards"][3]["file"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (named, reason), *rest = archive.damaged(folder)
    assert not rest
    assert (named, reason[:15]) == ("b/train-00000.array_record", "expected sha256")


def test_shuffling_300_million_records_takes_little_memory(tmp_path):
    """Places are a sparse file here; 73 243 shards of which none is opened."""
    count, of_shard = 300_000_000, archive.SHARD_RECORDS
    counts = np.diff(np.append(np.arange(0, count, of_shard), count)).tolist()
    told = [{"file": f"{i:05d}", "count": n} for i, n in enumerate(counts)]
    manifest = {"splits": {"train": {"shards": told}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    np.lib.format.open_memmap(tmp_path / "places-train.npy", "w+", np.int32, (count, 4))
    slides = np.stack([np.arange(30_000), np.full(30_000, count // 30_000)], axis=1)
    np.save(tmp_path / "slides-train.npy", slides)
    before = psutil.Process().memory_info().rss
    source = records.RecordSource(tmp_path, "train")
    drawn = shuffle.examples_at(np.arange(2_000), len(source), seed=0)
    assert [source.place(n) for n in drawn] == [(0, 0)] * 2_000
    assert drawn.max() > 0.99 * count
    assert psutil.Process().memory_info().rss - before < 200e6


PUBLISH = """
import pathlib, resource, sys
from ssldiff_jax.data import archive
from ssldiff_jax.formats import shards

folders = sorted(pathlib.Path(sys.argv[1]).glob("entry*"))
shard = shards.Shard("shard", 2**20, 1, "")
entries = {i: archive.Entry(f, f.name, {"train": (shard,)}, {}) for i, f in enumerate(folders)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
archive.publish(pathlib.Path(sys.argv[1]) / "few", {0: entries[0]})
before = peak()
archive.publish(pathlib.Path(sys.argv[1]) / "all", entries)
print(peak() - before)
"""


def test_places_of_many_slides_are_never_all_in_memory(tmp_path):
    """Those of 16 million records are 256 MB."""
    count, slides = 2**20, 16
    for i in range(slides):
        (tmp_path / f"entry{i:02d}").mkdir()
        own = np.lib.format.open_memmap(
            tmp_path / f"entry{i:02d}" / "train.npy", "w+", np.int32, (count, 4)
        )
        own[-1] = [0, i, 2 * i, 3]
        (tmp_path / f"entry{i:02d}" / "shard").write_bytes(b"0")
    command = [sys.executable, "-c", PUBLISH, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 100e6
    places = np.load(tmp_path / "all" / "places-train.npy", mmap_mode="r")
    assert (places.shape, places.dtype) == ((slides * count, 4), np.int32)
    last = [[i, i, 2 * i, 3] for i in range(slides)]
    assert places[count - 1 :: count].tolist() == last
    counted = np.load(tmp_path / "all" / "slides-train.npy")
    assert counted.tolist() == [[i, count] for i in range(slides)]
