"""Runs that differ in what they computed are told from those that differ in their times."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import same_outputs

from ssldiff_jax.train import checkpoint


def write(folder, **changes):
    """A work directory in small."""
    value = {"time": 1, "result": 2.0, "pixel": 3, "loss": 4.0, "tensor": 5.0, "weight": 6.0}
    value |= changes
    (folder / "sample").mkdir(parents=True)
    done = {"seconds": value["time"], "facts": {"fid": value["result"], "seconds": value["time"]}}
    (folder / "sample" / "done.json").write_text(json.dumps(done))
    (folder / "sample" / "image_0.tif").write_bytes(bytes([value["pixel"]] * 9))
    (folder / "sample" / ".seconds.json").write_text(str(value["time"]))
    (folder / "results.csv").write_text(f"date,fid\n{value['time']},{value['result']}\n")
    lines = [{"step": s, "loss": value["loss"], "seconds": value["time"]} for s in (1, 2)]
    (folder / "encoder").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "encoder" / "metrics.jsonl").write_text(text)
    safetensors.numpy.save_file(
        {"x": np.full(3, value["tensor"])}, folder / "encoder" / "a.safetensors"
    )
    params = {"layer": {"kernel": np.full((2, 3), value["weight"], np.float32)}}
    checkpoint.save_params(folder / "encoder" / "checkpoints", params)
    return folder


FILES = {
    "result": {"sample/done.json", "results.csv"},
    "pixel": {"sample/image_0.tif"},
    "loss": {"encoder/metrics.jsonl"},
    "tensor": {"encoder/a.safetensors"},
}


@pytest.mark.parametrize("changed", FILES)
def test_each_file_that_differs_is_named(tmp_path, changed):
    runs = write(tmp_path / "a"), write(tmp_path / "b", **{changed: 9, "time": 8})
    lines = same_outputs.differences(*runs)
    assert sorted(lines) == sorted(f"{name}: differs" for name in FILES[changed])


def test_times_are_no_difference_and_repeated_steps_neither(tmp_path):
    one, other = write(tmp_path / "a"), write(tmp_path / "b", time=8)
    curve = other / "encoder" / "metrics.jsonl"
    curve.write_text(curve.read_text() * 2)
    assert same_outputs.differences(one, other) == []


def test_weights_are_compared_to_the_bit(tmp_path):
    one = write(tmp_path / "a")
    other = write(tmp_path / "b", weight=float(np.nextafter(np.float32(6), np.float32(7))))
    (line,) = same_outputs.differences(one, other)
    assert line.startswith("encoder/checkpoints: ")
    assert "kernel" in line
    shutil.rmtree(other / "encoder" / "checkpoints" / "0")
    (line,) = same_outputs.differences(one, other)
    assert line == "encoder/checkpoints: of step [0], got []"


def test_missing_and_new_files_are_named(tmp_path):
    one, other = write(tmp_path / "a"), write(tmp_path / "b")
    (other / "results.csv").rename(other / "other.csv")
    assert same_outputs.differences(one, other) == [
        "results.csv: missing", "other.csv: not expected",
    ]  # fmt: skip
