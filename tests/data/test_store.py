import functools

import numpy as np
import pytest

from ssldiff_jax.data import loader, store

FIELDS = (
    store.Field("moments", (3, 2), "float16"),
    store.Field("label", (), "int64"),
    store.Field("flag", (5,), "uint8"),
)


def examples(count, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "moments": generator.normal(size=(count, 3, 2)).astype(np.float16),
        "label": generator.integers(-(2**40), 2**40, count),
        "flag": generator.integers(0, 256, (count, 5), np.uint8),
    }


def write(folder, count=11, shard_size=4, **facts):
    writer = store.StoreWriter(folder, FIELDS, shard_size)
    batch = examples(count)
    for at in (np.s_[:5], np.s_[5:]):
        writer.append(**{name: value[at] for name, value in batch.items()})
    writer.close(**facts)
    return batch


def test_every_field_and_dtype_comes_back_over_several_shards(tmp_path):
    batch = write(tmp_path, latent_shift=[1.5, 2])
    found = store.Store(tmp_path)
    assert len(found) == 11
    assert len(list(tmp_path.glob("*.array_record"))) == 3
    assert found.facts == {"latent_shift": [1.5, 2]}
    for i in reversed(range(11)):
        example = found[i]
        for field in FIELDS:
            assert example[field.name].dtype == field.dtype
            np.testing.assert_array_equal(example[field.name], batch[field.name][i])
    np.testing.assert_array_equal(found.read("moments", 7), batch["moments"][:7])
    np.testing.assert_array_equal(found.read("flag", 99), batch["flag"])


def test_bytes_of_an_example():
    assert [field.num_bytes for field in FIELDS] == [12, 8, 5]


def test_wrong_shape_names_the_field(tmp_path):
    writer = store.StoreWriter(tmp_path, FIELDS)
    batch = examples(2) | {"moments": np.zeros((2, 2, 3), np.float16)}
    with pytest.raises(ValueError, match=r"moments must be \(3, 2\) an example, got \(2, 3\)"):
        writer.append(**batch)


def test_refused_batch_adds_nothing(tmp_path):
    writer = store.StoreWriter(tmp_path, FIELDS)
    writer.append(**examples(2))
    with pytest.raises(ValueError, match="flag"):
        writer.append(**(examples(2) | {"flag": np.zeros((2, 4), np.uint8)}))
    writer.close()
    assert len(store.Store(tmp_path)) == 2


def test_fields_of_unequal_count_are_refused(tmp_path):
    writer = store.StoreWriter(tmp_path, FIELDS)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        writer.append(**(examples(3) | {"label": np.zeros(2, np.int64)}))


def test_killed_writer_leaves_nothing_readable(tmp_path):
    write(tmp_path)  # an older store, whole
    writer = store.StoreWriter(tmp_path, FIELDS, 4)
    writer.append(**examples(6))
    with pytest.raises(ValueError, match=f"no array store at {tmp_path}"):
        store.Store(tmp_path)


def test_writing_again_leaves_no_stale_shards(tmp_path):
    write(tmp_path, count=11)
    batch = write(tmp_path, count=6, shard_size=100)
    assert [p.name for p in tmp_path.glob("*.array_record")] == ["00000.array_record"]
    np.testing.assert_array_equal(store.Store(tmp_path).read("label", 6), batch["label"])


def test_missing_manifest_and_missing_shard_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no array store at .*nowhere"):
        store.Store(tmp_path / "nowhere")
    write(tmp_path)
    (tmp_path / "00001.array_record").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json names 00001\.array_record"):
        store.Store(tmp_path)


def test_shard_of_another_store_is_noticed(tmp_path):
    write(tmp_path / "a", count=8)
    write(tmp_path / "b", count=6)
    (tmp_path / "b" / "00001.array_record").replace(tmp_path / "a" / "00001.array_record")
    found = store.Store(tmp_path / "a")
    with pytest.raises(ValueError, match=r"expected 4 records in .*a/00001.array_record, got 2"):
        found[5]


def test_a_cut_shard_is_noticed(tmp_path):
    write(tmp_path)
    path = tmp_path / "00001.array_record"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"expects \d+ bytes of 00001.array_record, got \d+"):
        store.Store(tmp_path)


def test_damaged_manifest_names_the_file(tmp_path):
    write(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text()[:40])
    with pytest.raises(ValueError, match=r"manifest\.json is not valid JSON"):
        store.Store(tmp_path)


def test_cached_batches_join_examples_and_refuses_unequal_lengths(tmp_path):
    one = write(tmp_path / "one", count=6)
    writer = store.StoreWriter(tmp_path / "two", (store.Field("embedding", (4,), "float32"),))
    embedding = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    writer.append(embedding=embedding)
    writer.close()
    first, second = store.Store(tmp_path / "one"), store.Store(tmp_path / "two")
    settings = loader.LoaderConfig(num_threads=1, prefetch=1)
    joined_by = functools.partial(loader.cached_batches, batch_size=3, seed=0, config=settings)
    batches = iter(joined_by(first, second))
    epoch = [next(batches), next(batches)]
    joined = {name: np.concatenate([b[name] for b in epoch]) for name in epoch[0]}
    order = [int(np.flatnonzero((embedding == e).all(axis=1))[0]) for e in joined["embedding"]]
    assert sorted(order) == list(range(6))
    np.testing.assert_array_equal(joined["moments"], one["moments"][order])
    np.testing.assert_array_equal(joined["index"], np.arange(6))
    write(tmp_path / "three", count=7)
    with pytest.raises(ValueError, match=r"6 examples in Store\(two.*7 in Store\(three"):
        joined_by(second, store.Store(tmp_path / "three"))


def parts(examples_of, numbers, size=3):
    for start in range(numbers.start, numbers.stop, size):
        at = np.s_[start : min(start + size, numbers.stop)]
        yield {name: value[at] for name, value in examples_of.items()}


def shared(folder, count=11):
    return store.SharedStore(folder, FIELDS, count, shard_size=4)


def test_two_hosts_write_one_store(tmp_path):
    batch, made = examples(11), shared(tmp_path)
    assert [made.missing(host, 2) for host in (0, 1)] == [[0, 2], [1]]
    total = lambda b: np.array([len(b["label"]), b["flag"].sum(dtype=int)])
    for number in (1, 2, 0):  # in any order
        made.write(number, parts(batch, made.examples(number)), total)
    assert made.tally().tolist() == [11, batch["flag"].sum(dtype=int)]
    made.close(encoder="abc")
    found = store.Store(tmp_path)
    assert (len(found), found.facts) == (11, {"encoder": "abc"})
    for name, values in found.batch([10, 0, 4, 3]).items():
        np.testing.assert_array_equal(values, batch[name][[10, 0, 4, 3]])


def test_what_is_cut_off_goes_on_at_the_shard(tmp_path):
    batch, made = examples(11), shared(tmp_path)
    made.write(0, parts(batch, made.examples(0)))

    def dying():
        yield next(parts(batch, made.examples(1)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.write(1, dying())
    assert shared(tmp_path).missing() == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.array_record", "00000.json"]
    with pytest.raises(ValueError, match="lacks shard 1 of 3"):
        shared(tmp_path).close()
    # One that was harmed since is written again.
    (tmp_path / "00000.array_record").write_bytes(b"")
    assert shared(tmp_path).missing() == [0, 1, 2]


def test_a_shard_of_too_few_examples_is_refused(tmp_path):
    made = shared(tmp_path)
    with pytest.raises(ValueError, match="must have 4 examples, got 3"):
        made.write(0, [{name: value[:3] for name, value in examples(11).items()}])
    assert made.missing() == [0, 1, 2]


def test_damage_is_named(tmp_path):
    write(tmp_path)
    found = store.Store(tmp_path)
    assert list(found.damaged()) == []
    path = tmp_path / "00001.array_record"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    ((named, reason),) = found.damaged()
    assert named == path
    assert reason.startswith("expected sha256")


def test_a_shard_may_leave_examples_out_and_counts_them(tmp_path):
    batch, made = examples(11), shared(tmp_path)
    kept = {0: [0, 1, 2, 3], 1: [], 2: [9]}
    for number, numbers in kept.items():
        values = {name: value[numbers] for name, value in batch.items()}
        made.write(number, [values], left_out=len(made.examples(number)) - len(numbers))
    assert (made.missing(), made.left_out()) == ([], 6)
    made.close()
    found = store.Store(tmp_path)
    assert [found.of_shard(i) for i in range(3)] == [range(4), range(4, 4), range(4, 5)]
    np.testing.assert_array_equal(found.read("label", 11), batch["label"][[0, 1, 2, 3, 9]])
    with pytest.raises(ValueError, match="must have 3 examples, got 4"):
        made.write(1, parts(batch, made.examples(1)), left_out=1)
