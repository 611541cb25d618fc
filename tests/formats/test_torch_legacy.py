"""Files that torch wrote before it wrote zip archives."""

import pathlib
import pickle
import shutil
import struct

import numpy as np
import pytest

from ssldiff_jax.formats import tensors, torch_legacy

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


@pytest.fixture
def path(golden_path, tmp_path):
    """A copy of torch's own file that may be spoilt."""
    return pathlib.Path(shutil.copy(golden_path("torch_before_1_6.pth"), tmp_path))


class Calls:
    """Pickled as a call of any function."""

    def __init__(self, function, *args):
        self.made = function, args

    def __reduce__(self):
        return self.made


def written(path, value, keys=(), storages=b"", machine=None):
    parts = (MAGIC, VERSION, machine or {"little_endian": True}, value, list(keys))
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts) + storages)
    return path


def test_tensors_are_those_that_torch_wrote(path):
    assert torch_legacy.is_one(path)
    found = torch_legacy.read(path)
    assert list(found) == ["a.weight", "a.bias", "n", "view"]
    np.testing.assert_array_equal(found["a.weight"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["view"], found["a.weight"][1:])
    np.testing.assert_array_equal(found["a.bias"], np.array([1, 2], np.float16))
    assert found["a.bias"].dtype == np.float16
    assert found["n"] == 7


def test_nothing_in_a_file_is_run(tmp_path):
    trace = tmp_path / "trace"
    path = written(tmp_path / "bad.pth", {"x": Calls(pathlib.Path.touch, trace)})
    assert torch_legacy.read(path) == {}
    assert not trace.exists()


def test_a_file_of_the_other_byte_order_is_refused(tmp_path):
    path = written(tmp_path / "big.pth", {}, machine={"little_endian": False})
    with pytest.raises(tensors.WeightsError, match=r"big\.pth: .* this machine's byte order"):
        torch_legacy.read(path)


@pytest.mark.parametrize("left", [25, 120, 400, 660, -1])
def test_a_file_cut_short_is_one_line(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(tensors.WeightsError, match=r"torch_before_1_6\.pth: ") as error:
        torch_legacy.read(path)
    assert "\n" not in str(error.value)


def test_a_storage_of_another_length_is_refused(path):
    whole = path.read_bytes()
    length = struct.pack("<q", 6)
    at = whole.rindex(length + struct.pack("<f", 0))
    path.write_bytes(whole[:at] + struct.pack("<q", 7) + whole[at + 8 :])
    with pytest.raises(tensors.WeightsError, match=r"must hold 6 × float32, got 7 values"):
        torch_legacy.read(path)


def test_storages_that_no_tensor_names_are_refused(tmp_path):
    path = written(tmp_path / "more.pth", {}, keys=["0"], storages=struct.pack("<q", 0))
    with pytest.raises(tensors.WeightsError, match="0 storages were expected, got 1"):
        torch_legacy.read(path)


def test_other_files_are_not_of_this_kind(tmp_path):
    (tmp_path / "empty").touch()
    assert not torch_legacy.is_one(tmp_path / "empty")
    assert not torch_legacy.is_one(tmp_path / "absent")
    assert not torch_legacy.is_one(tmp_path)
