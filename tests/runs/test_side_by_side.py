"""Stages that run at the same time: what starts, what they make, and how they stop together."""

import csv
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import patience
import psutil
import pytest
import safetensors

from configs import tiny
from ssldiff_jax.core import machine
from ssldiff_jax.report import elapsed
from ssldiff_jax.runs import environment, processes, side_by_side
from ssldiff_jax.runs.workdir import forced_command

ROOT = pathlib.Path(__file__).parents[2]
MANY = 10_000_000
needs_cores = pytest.mark.skipif(machine.cores() < 2, reason="one core: no two stages at once")


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 5, 8, 64])
def test_each_of_more_than_two_stages_has_two_cores(cores):
    count = side_by_side.at_once(cores)
    assert count == {1: 1, 2: 2, 3: 2}.get(cores, count)
    assert 1 <= count <= cores
    if count > 2:
        assert cores // count >= 2
        assert cores // (count + 1) < 2


@pytest.mark.parametrize("seed", range(20))
def test_memory_has_room_where_all_could_reach_the_peak(seed):
    draw = np.random.default_rng(seed)
    total, peak = float(draw.integers(1000, 9000)), float(draw.integers(500, 3000))
    running = [float(draw.integers(100, 3500)) for _ in range(draw.integers(0, 4))]
    others = float(draw.integers(0, 1000))
    free = total - others - sum(running)
    most = others + sum(max(used, peak) for used in running) + peak
    assert side_by_side.has_room(free, running, peak) == (most <= total)


@pytest.mark.e2e
def test_a_process_of_other_code_than_its_commands_runs_nothing(tmp_path):
    """As after a pull or an installation while the command runs."""
    versions = environment.versions()
    values = tiny.get_config().to_dict()
    start = (sys.executable, "-c", "from ssldiff_jax import main; main.serve_stages()")
    began = versions | {"git": "0ld"}
    order = processes.Order(began, values, tmp_path, frozenset(), forced_command.Command(None))
    pool = processes.Pool(start, order)
    with pool.closing():
        pool.start("patches")
        while pool.busy:
            assert pool.wait(1.0) == {}
    assert pool.failures == [
        "error: the code must stay as it is while a command runs, got "
        f"git={versions['git']} after 0ld; the same command resumes with it"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_a_process_with_a_fault_ends_with_its_traceback_and_no_abort(tmp_path, capfd):
    """Nor does it wait for the thread that listens for further stages."""
    fault = "StageRunner.run = lambda *args: 1 / 0"
    code = (
        f"from ssldiff_jax.runs import one_stage; one_stage.{fault}; "
        "from ssldiff_jax import main; main.serve_stages()"
    )
    order = processes.Order(
        environment.versions(), tiny.get_config().to_dict(), tmp_path, frozenset(),
        forced_command.Command(None),
    )  # fmt: skip
    pool = processes.Pool((sys.executable, "-c", code), order)
    with pool.closing():
        pool.start("patches")
        while pool.busy:
            assert pool.wait(1.0) == {}
    assert pool.failures == [
        "error: stage 'patches' must end by itself, got exit status 1 of its process, whose lines "
        "say why"
    ]
    lines = capfd.readouterr().err
    assert "ZeroDivisionError: division by zero" in lines
    assert "Fatal" not in lines


class Command:
    """A command that was started, with what it says."""

    def __init__(self, workdir, *flags):
        self.workdir = workdir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssldiff_jax.main", f"--workdir={workdir}", *flags],
            cwd=ROOT, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, start_new_session=True,
            stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.family = []

    def until_both_train(self):
        """Until each has written two lines since now."""
        paths = [self.workdir / name / "metrics.jsonl" for name in ("encoder", "judge")]
        size = lambda path: path.stat().st_size if path.exists() else 0
        least = [size(path) + 400 for path in paths]
        grown = lambda: all(size(p) >= n for p, n in zip(paths, least, strict=True))
        patience.until(grown, self.process)
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        return self

    def end(self):
        """Its exit status, and its lines, none of them of a traceback."""
        _, lines = patience.communicate(self.process)
        assert "Traceback" not in lines, lines
        assert "Fatal" not in lines, lines
        return self.process.returncode, lines


TRAIN = ("--config=configs/tiny.py", "--config.stages=patches,encoder,judge",
         *(f"--config.{name}.train.num_steps={MANY}" for name in ("encoder", "judge")))  # fmt: skip


def steps(lines):
    """At which step each of both trainings was stopped and saved."""
    stopped = re.findall(rf"(\w+) was stopped at step (\d+) of {MANY} and saved", lines)
    assert sorted(name for name, _ in stopped) == ["encoder", "judge"], lines
    return {name: int(step) for name, step in stopped}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two trainings, stopped by the Ctrl-C of a terminal, which all of their processes get."""
    workdir = tmp_path_factory.mktemp("side_by_side") / "run"
    command = Command(workdir, *TRAIN).until_both_train()
    os.killpg(command.process.pid, signal.SIGINT)
    return workdir, command, *command.end()


@needs_cores
@pytest.mark.e2e
def test_ctrl_c_saves_all_that_train(stopped):
    workdir, command, status, lines = stopped
    assert status == 130
    for name, step in steps(lines).items():
        assert (workdir / name / "checkpoints" / str(step)).is_dir()
    assert not any(process.is_running() for process in command.family)
    # Every line between the first and the last of the stages names one.
    log = [line for line in lines.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    of_stages = [line.split(" ", 1)[1] for line in log[3:-1]]
    assert all(re.match(r"(stage )?(patches|encoder|judge)\b", line) for line in of_stages), log
    # The parent alone hears it, and says so once.
    assert lines.count("Ctrl-C: saving") == 1


@needs_cores
@pytest.mark.e2e
def test_a_failure_stops_the_others_and_is_the_last_line(stopped):
    """Another process works on the judge."""
    workdir, *_ = stopped
    with (workdir / ".judge.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = Command(workdir)
        status, lines = command.end()
    assert status == 1
    assert re.fullmatch(
        rf"error: {workdir}/judge must be used by one process at a time, got another one .*",
        lines.splitlines()[-1],
    )
    assert "encoder was stopped" in lines
    assert "stage patches is done" in lines


@needs_cores
@pytest.mark.slow
@pytest.mark.e2e
def test_they_resume_and_end_with_the_process_that_started_them(stopped):
    workdir, _, _, lines = stopped
    before = steps(lines)
    command = Command(workdir).until_both_train()
    command.process.send_signal(signal.SIGTERM)  # to the parent alone
    status, lines = command.end()
    assert status == 143
    assert all(step > before[name] for name, step in steps(lines).items())
    command = Command(workdir).until_both_train()
    assert len(command.family) >= 2
    command.process.kill()
    command.process.communicate()
    _, alive = psutil.wait_procs(command.family, timeout=60)
    assert not alive


MEASURED = ("seconds", "finished", "peak_rss_mb", "step_seconds", "examples_per_second",
            "input_wait", "flops_per_second", "look_seconds")  # fmt: skip
"""Keys of times and of what is had of them."""
TRAINED = ("encoder", "judge", "autoencoder", "denoiser", "prior")


def without_measured(value):
    if isinstance(value, dict):
        return {k: without_measured(v) for k, v in value.items() if k not in MEASURED}
    return [without_measured(v) for v in value] if isinstance(value, list) else value


def contents(folder):
    """What a run wrote, by path, without times: but for the commands it was made by, and for
    checkpoints, of which each file has a random name."""
    others = ("config.json", "commands.jsonl", "environment.json", "report", "checkpoints")
    values = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        # Stopwatches have names that begin with a dot.
        is_other = path.name[0] == "." or {"tensorboard", *others}.intersection(inside.parts)
        if path.is_dir() or is_other:
            continue
        if path.suffix == ".json":
            values[str(inside)] = without_measured(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            lines = path.read_text().splitlines()
            values[str(inside)] = [without_measured(json.loads(line)) for line in lines]
        elif path.suffix == ".safetensors":
            values[str(inside)] = tensors(path)
        elif path.name == "results.csv":
            # Without the first column, which is the date.
            values[str(inside)] = [row[1:] for row in csv.reader(path.read_text().splitlines())]
        else:
            values[str(inside)] = path.read_bytes()
    return values


def tensors(path):
    """The header of such a file has no order of its own."""
    with safetensors.safe_open(path, "np") as file:
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {n: (str(x.dtype), x.shape, x.tobytes()) for n, x in parts.items()}


def state(folder):
    """All that the last checkpoint of a training holds, by its path in the tree."""
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        tree = manager.restore(manager.latest_step(), args=args)["state"]
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


@needs_cores
@pytest.mark.e2e
def test_results_are_the_bits_of_one_after_another(workdir, command, tmp_path):
    """Of all steps: only times differ, and what was asked for."""
    alone = tmp_path / "alone"
    result = command(alone, "--config.runtime.side_by_side=never")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "at the same time" not in result.stderr
    spans = [elapsed.Span.of(json.loads(p.read_text())) for p in workdir.glob("*/done.json")]
    assert elapsed.seconds(spans) < 0.98 * sum(s.end - s.begin for s in spans)
    ours, theirs = contents(workdir), contents(alone)
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []
    for name in TRAINED:
        one, other = state(workdir / name), state(alone / name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one), name
