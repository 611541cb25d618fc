"""A training that is stopped by Ctrl-C or SIGTERM saves itself, and its workdir alone goes on."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MANY = 10_000_000

pytestmark = pytest.mark.e2e


def stopped_by(number, *flags):
    """Signal the whole group of processes once it trains; its status, words, and last step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ssldiff_jax.main", *flags], cwd=ROOT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, start_new_session=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.search(r"stage encoder (starts|resumes)", line):
            break
    # The second line that its training writes: the step is compiled and checkpoints are open.
    metrics = pathlib.Path(flags[0].removeprefix("--workdir=")) / "encoder" / "metrics.jsonl"
    before = size = metrics.stat().st_size if metrics.exists() else 0
    while size < before + 400 and process.poll() is None:
        size = metrics.stat().st_size if metrics.exists() else 0
    os.killpg(process.pid, number)
    told = "".join([*lines, process.communicate()[1]])
    found = re.search(rf"encoder was stopped at step (\d+) of {MANY} and saved", told)
    assert found, told
    return process.returncode, told, int(found.group(1))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    found = stopped_by(
        signal.SIGINT, f"--workdir={workdir}", "--config=configs/tiny.py",
        "--config.stages=patches,encoder", f"--config.encoder.train.num_steps={MANY}",
    )  # fmt: skip
    return workdir, *found


def test_ctrl_c_saves_a_training(interrupted):
    workdir, status, told, step = interrupted
    assert status == 130
    assert "Traceback" not in told
    assert len(told.splitlines()) < 30
    assert (workdir / "encoder" / "checkpoints" / str(step)).is_dir()


@pytest.mark.slow
def test_its_workdir_alone_goes_on_and_sigterm_saves_too(interrupted):
    workdir, _, _, first = interrupted
    status, told, second = stopped_by(signal.SIGTERM, f"--workdir={workdir}")
    assert status == 143
    assert second > first
    assert "stage patches is done" in told
