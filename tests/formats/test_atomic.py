import json
import logging

import numpy as np
import pytest

from ssldiff_jax.formats import atomic


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
