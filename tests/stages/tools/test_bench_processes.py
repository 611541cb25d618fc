"""How the tool `bench` goes through its parts: in which order, and what it does where one hangs, is
killed, runs out of memory, or was measured by an earlier call."""

import json
import pathlib
import signal
import sys
import time

import pytest

from configs import tiny
from ssldiff_jax.core import schema
from ssldiff_jax.runs.command import command_line
from ssldiff_jax.runs.config import run as run_config
from ssldiff_jax.stages.tools.bench import parts, process, results, supervise

# Speaks as a part does, and ends as its kind says: a real process without the imports of jax.
SPEAKER = """
import json, os, signal, subprocess, sys, time

kind = sys.argv[1]
say = lambda **message: print(json.dumps(message), flush=True)
say(hardware="1 × card")
say(figure=[f"{kind}/rate", [2.0, 4.0, 3.0], "patches/s"])
if kind == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say(figure=["hangs/child", [child.pid], "number"])
    time.sleep(600)
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "short":
    say(failed="out of memory: another 40.0 GB were needed")
    sys.exit(1)
if kind == "crashes":
    sys.exit(7)
"""


@pytest.fixture
def config():
    return schema.build(run_config.RunConfig, tiny.get_config().to_dict())


@pytest.fixture
def run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", SPEAKER))

    def start(*kinds, each=0.0, total=0.0):
        measured = results.Results(tmp_path)
        orders = [parts.Order(parts.Part(k), config, tmp_path, tmp_path) for k in kinds]
        supervise.run(orders, supervise.Limits(each, total), measured)
        return {r["name"]: r for r in json.loads((tmp_path / "results.json").read_text())}

    return start


def is_alive(pid):
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_row_is_the_median_of_its_repetitions(run):
    row = run("good")["good/rate"]
    assert (row["value"], row["spread"], row["repetitions"]) == (3.0, 2.0, 3)
    assert (row["unit"], row["hardware"], row["failed"]) == ("patches/s", "1 × card", "")


def test_a_part_that_hangs_costs_its_limit_and_nothing_else(run):
    rows = run("hangs", "good", each=10.0)
    assert "not ended after 10 s" in rows["hangs/process"]["failed"]
    assert rows["hangs/process"]["value"] >= 10.0
    # What it measured before, and the part after it.
    assert rows["hangs/rate"]["value"] == rows["good/rate"]["value"] == 3.0
    assert rows["good/process"]["failed"] == ""
    pid = int(rows["hangs/child"]["value"])
    while is_alive(pid):
        time.sleep(0.05)  # until the system has ended it


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("short", "out of memory: another 40.0 GB"), ("killed", "memory is full"),
     ("crashes", "status 7, see log.txt")],
)  # fmt: skip
def test_a_part_that_fails_is_a_row_that_says_why(run, kind, reason):
    rows = run(kind, "good")
    assert reason in rows[f"{kind}/process"]["failed"]
    assert rows[f"{kind}/process"]["hardware"] == "1 × card"
    assert rows["good/process"]["failed"] == ""


def test_a_second_call_measures_what_the_first_did_not(run, tmp_path):
    run("good", "crashes")
    # The last line was cut off by whatever ended the call.
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"name": "good/ra')
    before = (tmp_path / "log.txt").read_text()
    rows = run("good", "crashes", "other")
    assert (tmp_path / "log.txt").read_text() == f"{before}== crashes\n== other\n"
    assert {"good/rate", "crashes/process", "other/rate"} <= rows.keys()
    assert run("good", "crashes", "other").keys() == rows.keys()


def test_what_came_to_its_limit_is_tried_once_more_while_there_is_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "_LEAST", 0.0)
    run("hangs", "good", each=8.0, total=600.0)
    assert (tmp_path / "log.txt").read_text() == "== hangs\n== good\n== hangs\n"


def test_no_part_begins_when_the_time_is_over(run, tmp_path):
    run("good")
    rows = run("other", total=1e-3)
    assert "total_s was over" in rows["other/process"]["failed"]
    assert rows.keys() == {"good/rate", "good/process", "other/process"}
    assert "== other" not in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(("wanted", "taken"), [(("good", "other"), True), (("good",), False)])
def test_a_new_call_goes_on_from_one_that_left_something_out(run, tmp_path, wanted, taken):
    run("good")
    run("other", total=1e-3)
    new = results.Results(tmp_path / "new")
    new.go_on_from(tmp_path, wanted)
    assert (new.is_done("good"), new.is_done("other")) == (taken, False)
    again = results.Results(tmp_path / "new")
    assert again.is_done("good") == taken
    assert again.failed == (["other/process"] if taken else [])


def test_the_first_of_every_part_comes_before_the_second_of_any(config):
    values = tiny.get_config()
    values.bench.parts = ("training", "images", "decode")
    values.bench.train, values.bench.batch_size = ("denoiser", "prior"), (0, 6)
    values.bench.sizes = (128, 512)
    names = [p.name for p in parts.of_config(schema.build(run_config.RunConfig, values.to_dict()))]
    assert names == [
        "training/denoiser/8", "images/128", "decode", "training/prior/8", "images/512",
        "training/denoiser/6", "training/prior/6",
    ]  # fmt: skip


def test_reasons_say_what_was_short():
    reason = process._reason(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to "
                                          "allocate 40000000000 bytes."))  # fmt: skip
    assert reason.startswith("out of memory: another 40.0 GB were needed (RESOURCE_EXHAUSTED")
    assert process._reason(KeyError("x")) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("--config.stages=bench,sample",), "must stand alone"),
     (("--config.stages=bench", "--config.runtime.distributed=auto"), "measures one host")],
)  # fmt: skip
def test_bench_has_the_devices_for_itself(tmp_path, words, expected):
    file = pathlib.Path(tiny.__file__)
    with pytest.raises(schema.ConfigError, match=expected):
        command_line.parse(["main", f"--config={file}", f"--workdir={tmp_path}", *words])


def test_a_process_ends_with_the_one_that_started_it(config, tmp_path):
    order = parts.Order(parts.Part("network"), config, tmp_path, tmp_path)
    child = supervise._Child(order, float("inf"))
    try:
        child._process.stdin.close()
        child._process.wait()
        assert child._process.returncode == -signal.SIGKILL
    finally:
        child._kill()
    assert not is_alive(child._process.pid)
