"""How large files of records become, by writing them."""

import numpy as np
import pytest

from ssldiff_jax.formats import shards

BLOCK = 1 << 16


@pytest.mark.parametrize("length", [40, 384, 1536, 6200, 24_576, 70_001])
@pytest.mark.parametrize("count", [1, 7, 100, 1500])
def test_a_file_is_as_large_as_it_becomes(tmp_path, count, length):
    writer = shards.ShardWriter(tmp_path / "file.array_record")
    record = np.random.default_rng(0).bytes(length)
    for _ in range(count):
        writer.write(record)
    actual = writer.close().bytes
    assert abs(shards.file_bytes(count, length) - actual) <= BLOCK
    if actual > 100 * BLOCK:
        assert shards.file_bytes(count, length) == pytest.approx(actual, rel=0.01)


def test_records_of_other_lengths_are_their_mean(tmp_path):
    random = np.random.default_rng(0)
    lengths = random.integers(5_000, 40_000, 600)
    writer = shards.ShardWriter(tmp_path / "file.array_record")
    for length in lengths:
        writer.write(random.bytes(int(length)))
    actual = writer.close().bytes
    assert shards.file_bytes(len(lengths), lengths.mean()) == pytest.approx(actual, rel=0.01)


def test_a_store_is_its_whole_files_and_the_last():
    whole, last = shards.file_bytes(100, 3000), shards.file_bytes(37, 3000)
    assert shards.store_bytes(437, 3000, 100) == 4 * whole + last
    assert shards.store_bytes(400, 3000, 100) == 4 * whole
    assert shards.store_bytes(0, 3000, 100) == 0
