"""Files that a killed process had half written are gone when its command resumes, and nothing else
is.

This file is also the script of such a process.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs import tiny
from ssldiff_jax.data import store
from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import launch
from ssldiff_jax.slides import whole_file
from ssldiff_jax.stages import table


def fill(path):
    path.write_bytes(b"x" * 1000)
    os._exit(0)


def image(path):
    with whole_file.replacing(path) as temporary:
        fill(temporary)


def shards(folder):
    def batches():
        yield {"x": np.zeros((4, 3))}
        os._exit(0)

    shared = store.SharedStore(folder, (store.Field("x", (3,), "float32"),), 8, 8)
    shared.write(0, batches())


WRITERS = {
    "json": lambda folder: atomic.write_atomic(folder / "a.b.json", fill),
    "text": lambda folder: atomic.write_atomic(folder / "parameters", fill),
    "tif": lambda folder: image(folder / "image_0.ome.tif"),
    "shard": lambda folder: shards(folder / "train"),
}
KEPT = (
    ".seconds.json", ".training_seconds.json", ".hosts", ".lock", ".image.lock", ".a.seconds",
    "image_0.tif", "00000.array_record", "a.b12345678.json",
)  # fmt: skip


def killed(name, folder):
    """What a process that ends while it writes leaves."""
    before = set(folder.rglob("*"))
    command = [sys.executable, __file__, name, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    subprocess.run(command, env=environment, check=True)
    return [path for path in set(folder.rglob("*")) - before if path.is_file()]


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_killed_process_left_is_known_by_its_name(tmp_path, name):
    for kept in KEPT:
        (tmp_path / kept).touch()
    for folder in (".generate.new", ".image.autumn_1.new", ".0123456789ab"):
        (tmp_path / folder).mkdir()
    (left,) = killed(name, tmp_path)
    assert list(atomic.unfinished(tmp_path)) == [left]


def test_a_step_that_resumes_removes_them(tmp_path):
    config = tiny.get_config()
    config.stages, config.data.engine.processes = "patches", 1
    run = lambda: launch.launch(config.to_dict(), tmp_path, table.STAGES)
    run()
    folder = tmp_path / "patches"
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    left = [folder / ".region_0.png.a1b2c3d4.png", folder / "records" / ".0123456789ab"]
    for path in left:
        path.write_bytes(bytes(100))
    # As of a run that was killed before its end; what is done is left as it is.
    run()
    assert all(path.exists() for path in left)
    (folder / "done.json").unlink()
    run()
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == files


if __name__ == "__main__":
    WRITERS[sys.argv[1]](pathlib.Path(sys.argv[2]))
    sys.exit("expected to end before")
