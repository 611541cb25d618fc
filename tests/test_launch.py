"""The scripts of launch/."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))


def test_scripts_are_short_and_without_known_faults():
    checker = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
    paths = [str(LAUNCH / name) for name in SCRIPTS]
    found = subprocess.run([checker, *paths], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    for path in paths:
        assert len(pathlib.Path(path).read_text().splitlines()) <= 40, path


@pytest.mark.parametrize("name", ["tpu_pod.sh", "gke_xpk.sh", "local_multiprocess.sh"])
def test_scripts_say_what_they_lack(name):
    found = subprocess.run(
        ["bash", str(LAUNCH / name)], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert found.returncode != 0
    assert "expected" in found.stderr.splitlines()[-1]


def test_an_interpreter_that_is_too_old_is_told_before_anything_is_made(tmp_path):
    (tmp_path / "launch").mkdir()
    shutil.copy(LAUNCH / "setup.sh", tmp_path / "launch")
    old = tmp_path / "python3.9"
    pretend = "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[2])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$@"\n')
    old.chmod(0o755)
    found = subprocess.run(
        ["bash", "launch/setup.sh"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHON": str(old)},
    )  # fmt: skip
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith("expected Python 3.11 or newer, got 3.9 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["launch", "python3.9"]


def stand_in(folder, name):
    """A program that prints how it was called."""
    path = folder / name
    path.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)


def test_pods_are_told_the_command_once_quoted(tmp_path):
    stand_in(tmp_path, "gcloud")
    stand_in(tmp_path, "xpk")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "TPU_NAME": "pod", "ZONE": "z", "CLUSTER": "c",
        "TPU_TYPE": "v5litepod-16", "IMAGE": "i",
    }  # fmt: skip
    flags = ["--config=configs/tcga.py", "--config.data.slides=/data/a b/*.svs"]
    wanted = "--config.data.slides=/data/a\\ b/\\*.svs --config.runtime.distributed=auto"
    for name in ("tpu_pod.sh", "gke_xpk.sh"):
        found = subprocess.run(
            ["bash", str(LAUNCH / name), *flags], capture_output=True, text=True, check=True,
            env=environment,
        )  # fmt: skip
        (command,) = [x for x in found.stdout.splitlines() if x.startswith("--command=")]
        assert "python -m ssldiff_jax.main --config=configs/tcga.py" in command
        assert command.rstrip().endswith(wanted)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("stages", "last", "force"),
    [
        ("patches,encoder", "encoder", "patches,encoder"),
        pytest.param("all", "report", "", marks=pytest.mark.slow),
    ],
)
def test_two_local_processes_run_as_one(tmp_path, stages, last, force):
    """Also what they make beside its place, which the first one lets take it."""
    found = subprocess.run(
        [
            "bash", "launch/local_multiprocess.sh", "2", "--config=configs/tiny.py",
            f"--workdir={tmp_path}", f"--config.stages={stages}",
            f"--config.force={force}", "--config.encoder.train.num_steps=2",
        ],
        cwd=LAUNCH.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    for stage in ("patches", "encoder", last):
        assert (tmp_path / stage / "done.json").exists()
        assert not (tmp_path / f".{stage}.new").exists()
    lines = (tmp_path / "encoder" / "metrics.jsonl").read_text().splitlines()
    assert [line.startswith('{"step": 2') for line in lines] == [True]
