"""Steps whose work hosts divide: two processes of two devices each make what one process makes."""

import os
import pathlib
import shutil
import signal
import subprocess

import numpy as np
import patience
import pytest
from PIL import Image

from ssldiff_jax.formats import atomic
from ssldiff_jax.runs import host_arrays

pytestmark = pytest.mark.e2e

ROOT = pathlib.Path(__file__).parents[2]
MADE_ANEW = ("sample", "evaluate", "imagine")
STUDY = (
    "--config.study.tasks=('patches','bags')", "--config.study.patches.count=40",
    "--config.study.patches.count_test=40", "--config.study.patches.models=('linear',)",
    "--config.study.patches.num_generated=2", "--config.study.bags.count=40",
    "--config.study.bags.count_test=24", "--config.study.bags.side=2",
    "--config.study.bags.models=('mean',)", "--config.study.bags.network.fit.num_steps=2",
    "--config.study.seeds=2", "--config.study.resamples=20", "--config.study.fractions=(0.5,)",
)  # fmt: skip


def run_by_hosts(folder, *flags):
    """The log of two processes."""
    words = ["--config=configs/tiny.py", f"--workdir={folder}", *flags]
    ended = patience.run(
        ["bash", "launch/local_multiprocess.sh", "2", *words],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stderr


@pytest.fixture(scope="module")
def by_hosts(workdir, tmp_path_factory):
    """A run whose generating steps two processes made; and the log of both."""
    folder = tmp_path_factory.mktemp("by_hosts") / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    for name in (*MADE_ANEW, "report", "watch", "study"):
        shutil.rmtree(folder / name, ignore_errors=True)
    # It was trained; what it is worth is measured again.
    for name in ("done.json", "results.json"):
        (folder / "prior" / name).unlink()
    # Saved after every chunk, as large canvases are every few minutes.
    often = "--config.sample.checkpoint_minutes=0.0"
    stages = "--config.stages=prior,sample,evaluate,imagine,watch"
    return folder, run_by_hosts(folder, often, stages)


@pytest.fixture(scope="module")
def by_one(workdir, command, tmp_path_factory):
    """The same by one process of one device."""
    folder = tmp_path_factory.mktemp("by_one") / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    ended = command(folder, "--config.stages=watch")
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def images(folder, name):
    paths = (folder / name).rglob("*.png")
    # By place: real and generated patches have the same numbers.
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in paths}


@pytest.mark.parametrize("name", ["sample", "imagine", "evaluate"])
def test_images_are_those_of_one_host(by_hosts, workdir, name):
    made, expected = images(by_hosts[0], name), images(workdir, name)
    assert made.keys() == expected.keys()
    for file, image in made.items():
        # Two devices share a batch: products may be added in another order.
        difference = np.abs(image.astype(int) - expected[file])
        assert difference.max() <= 1, file


def same(a, b, at=""):
    """Equal, numbers to what float32 products of other batches leave."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            if "seconds" not in key and key != "sha256":
                same(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), at
        for i, pair in enumerate(zip(a, b, strict=True)):
            same(*pair, f"{at}[{i}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=2e-2, abs=2e-2), at
    else:
        assert a == b, at


@pytest.mark.slow
def test_a_study_is_that_of_one_host(workdir, command, tmp_path):
    runs = [tmp_path / name for name in ("hosts", "one")]
    for folder in runs:
        shutil.copytree(workdir, folder, symlinks=True)
    stages = "--config.stages=study"
    run_by_hosts(runs[0], stages, *STUDY)
    ended = command(runs[1], stages, *STUDY)
    assert ended.returncode == 0, ended.stderr[-3000:]
    same(*(atomic.read_json(run / "study" / "results.json") for run in runs))


@pytest.mark.parametrize("name", ["prior", "evaluate", "imagine", "watch"])
def test_figures_are_those_of_one_host(by_hosts, by_one, name):
    same(*(atomic.read_json(run / name / "results.json") for run in (by_hosts[0], by_one)))


def test_both_hosts_generate(by_hosts):
    """Each says when its share is done: four images are two and two."""
    ends = [line.split("  ")[0] for line in by_hosts[1].splitlines() if " imagine 2/2" in line]
    assert len(ends) == 2
    assert " imagine 4/4" not in by_hosts[1]


def test_what_lay_between_is_gone(by_hosts):
    left = [
        path for path in by_hosts[0].rglob(".*") if path.is_dir() and path.parent != by_hosts[0]
    ]
    parts = list(by_hosts[0].rglob("*.parts"))
    assert [path for path in (*left, *parts) if any(path.iterdir())] == []


def test_a_signal_stops_hosts_that_wait_for_a_checkpoint(workdir, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder, symlinks=True)
    # As if it still trained: more checkpoints may come.
    (folder / "denoiser" / "done.json").unlink()
    process = subprocess.Popen(
        ["bash", "launch/local_multiprocess.sh", "2", "--config=configs/tiny.py",
         f"--workdir={folder}", "--config.stages=watch", "--config.evaluate.patience=3.0"],
        cwd=ROOT, text=True, stderr=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    for line in process.stderr:
        if " Fréchet distance by encoder " in line:
            process.send_signal(signal.SIGTERM)
            break
    _, rest = patience.communicate(process)
    assert rest.count("stopped between two checkpoints; the same command resumes") == 2
    assert process.returncode == 143


def test_arrays_that_are_there_are_not_made_again(tmp_path):
    arrays, asked = host_arrays.HostArrays(tmp_path / "between", 4), []

    def make(number, fail_at=None):
        asked.append(number)
        if number == fail_at:
            raise OSError("disk full")
        return np.full((number, 2), number, np.float32)

    with pytest.raises(OSError, match="disk full"):
        arrays.make("arrays", lambda number: make(number, 2))
    arrays.make("arrays", make)
    assert asked == [0, 1, 2, 2, 3]
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(array, np.full((number, 2), number, np.float32))
    arrays.drop()
    assert not (tmp_path / "between").exists()
