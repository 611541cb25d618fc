"""Two processes never work on one folder."""

import subprocess
import sys

import pytest

from ssldiff_jax.runs import stage
from ssldiff_jax.runs.workdir import lock

_HOLDS = """
import pathlib, sys, time
from ssldiff_jax.runs.workdir import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_refused_until_it_ends(tmp_path):
    folder = tmp_path / "run" / "denoiser"
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with (
        pytest.raises(stage.WorkdirError, match=r"denoiser must be used by one process at a time"),
        lock.held(folder),
    ):
        pytest.fail("two at once")
    with lock.held(folder.with_name("encoder")):  # another stage
        pass
    other.kill()  # as a crash: the file stays, the lock does not
    other.wait()
    for _ in range(2):
        with lock.held(folder):
            pass
    assert list(folder.parent.iterdir()) == []


def test_where_nothing_can_be_written_nobody_is_kept_off(tmp_path):
    (tmp_path / "file").touch()
    with lock.held(tmp_path / "file" / "denoiser"):
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b""
