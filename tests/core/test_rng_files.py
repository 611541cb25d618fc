import json
import logging

import jax
import numpy as np
import pytest

from ssldiff_jax.core import rng
from ssldiff_jax.formats import atomic


@jax.jit
def draw(index):
    return rng.per_example(rng.stream(0, "noise", 3), index, jax.random.normal, (4, 2))


def test_noise_does_not_depend_on_the_split_of_the_batch():
    index = np.array([7, 0, 12, 5, 1, 90])
    whole = np.asarray(draw(index))
    for parts in (np.split(index, 2), index[:, None]):
        np.testing.assert_array_equal(np.concatenate([draw(part) for part in parts]), whole)
    order = np.argsort(index)
    np.testing.assert_array_equal(draw(index[order]), whole[order])


def test_every_example_draws_its_own_noise():
    drawn = np.asarray(draw(np.arange(2000))).reshape(2000, 8)
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    assert np.abs(np.corrcoef(drawn, rowvar=False) - np.eye(8)).max() < 0.1
    assert abs(np.std(drawn) - 1) < 0.03


def test_streams_differ_by_seed_name_and_step():
    keys = [
        rng.stream(seed, name, step)
        for seed in (0, 1)
        for name in ("noise", "noise2", "params")
        for step in (None, 0, 1, 2)
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


def test_streams_are_the_same_inside_a_jit():
    inside = jax.jit(lambda step: rng.stream(5, "noise", step))(3)
    assert inside == rng.stream(5, "noise", 3)


def fail_half_way(error):
    def write(path):
        path.write_text("half of the n")
        raise error

    return write


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("x")])
def test_a_failing_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "out.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises(type(error)):
        atomic.write_atomic(path, fail_half_way(error))
    assert atomic.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_names_the_path_and_the_reason(tmp_path):
    path = tmp_path / "out.json"
    with pytest.raises(OSError, match="No space left on device") as caught:
        atomic.write_atomic(path, fail_half_way(OSError(28, "No space left on device")))
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_error_names_the_path_where_a_file_stands_in_for_its_folder(tmp_path):
    (tmp_path / "folder").write_text("a file")
    path = tmp_path / "folder" / "out.json"
    with pytest.raises(OSError, match="cannot write") as caught:
        atomic.write_json(path, {})
    assert str(path) in str(caught.value)


def test_a_write_replaces_the_file_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "out.json"
    for value in ({"x": np.float32(0.5)}, {"x": [1, 2], "y": None}):
        atomic.write_json(path, value)
        assert atomic.read_json(path) == value
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_seeds_of_streams_are_apart():
    """Of a run's streams, of their numbers, and of runs whose seeds are neighbours."""
    names = ("encoder/data", "judge/data", "sample/image", "crops")
    every = [
        rng.seed_of(root, name, n) for root in (0, 1, 2, -1) for name in names for n in range(50)
    ]
    assert len(set(every)) == len(every)
    assert all(0 <= seed < 2**31 for seed in every)
    assert rng.seed_of(3, "crops") == rng.seed_of(3, "crops", 0) != rng.seed_of(3, "crops", 1)
    assert rng.seed_of(0, "sample/image", 1) == 574541741


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "out.json"
    path.write_text('{"a": 1')
    with pytest.raises(ValueError, match=r"out\.json is not valid JSON"):
        atomic.read_json(path)


def test_json_has_no_nan_and_the_log_names_what_was_one(tmp_path, caplog):
    path = tmp_path / "results.json"
    told = {"a": {"b": [1.0, np.float32("nan")]}, "c": float("-inf"), "d": np.int64(3), "e": (2.5,)}
    with caplog.at_level(logging.WARNING, logger="ssldiff_jax"):
        atomic.write_json(path, told)
    refuse = lambda name: pytest.fail(f"{name} is no JSON")
    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"a": {"b": [1.0, None]}, "c": None, "d": 3, "e": [2.5]}
    assert "results.json: not finite, written as null: a.b[1], c" in caplog.text
