"""Hosts that give no sign of life are named, and those that only work are not.

This file is also the script of two such hosts.
"""

import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import patience
import pytest

from ssldiff_jax.train import heartbeat, hosts

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(10))
def test_a_host_is_named_once_for_each_silence(tmp_path, seed):
    """Against the times of its signs; each second it gives one or does not."""
    draw = np.random.default_rng(seed)
    clock = [0.0]
    watching, other = (
        heartbeat.Heartbeat(tmp_path, index, 2, silent=5.0, now=lambda: clock[0])
        for index in (0, 1)
    )
    last, is_silent = 0.0, False
    alive = np.repeat(draw.random(20) < 0.5, draw.integers(1, 12, 20))
    for second, gives_sign in enumerate(alive):
        clock[0] = float(second)
        expected = []
        if gives_sign:
            other.beat("working")
            expected = ["host 1 is back"] if is_silent else []
            last, is_silent = clock[0], False
        elif clock[0] - last >= 5 and not is_silent:
            is_silent = True
            seen = ", last seen working" if alive[:second].any() else ""
            expected = [f"here: host 1 has shown no sign of life for {second - last:.0f} s{seen}"]
        assert watching.lines("here") == expected, second


def test_a_host_that_has_ended_is_not_missed(tmp_path):
    clock = [0.0]
    first, second, third = (
        heartbeat.Heartbeat(tmp_path, i, 3, silent=5.0, now=lambda: clock[0]) for i in range(3)
    )
    second.beat("working", ended=True)
    third.beat("waiting at 'x'")
    lines = []
    for second in range(10):
        clock[0] = float(second)
        lines += first.lines("working")
    assert lines == ["working: host 2 has shown no sign of life for 5 s, last seen waiting at 'x'"]


def pair(folder, clock, **more):
    return [
        heartbeat.Heartbeat(folder, i, 2, silent=40.0, now=lambda: clock[0], **more)
        for i in range(2)
    ]


@pytest.mark.parametrize("stall", [20, 39, 60, 600])
def test_storage_that_stalls_for_all_is_nobodys_silence(tmp_path, stall):
    """Neither host can read or write for that long; then this one looks before the other has
    written."""
    clock = [0.0]
    here, there = pair(tmp_path, clock)
    for second in range(0, 30, 5):
        clock[0] = float(second)
        there.beat("working")
        assert here.lines("working") == []
    clock[0] += 5 + stall
    lines = here.lines("working")
    assert [line for line in lines if "host 1" in line] == []
    assert len(lines) == (stall >= 30)
    for line in lines:
        assert f"did not answer, or this process stood still, for {stall + 5} s" in line
    # It is missed once it gives no sign where this host can look.
    lines = []
    for _ in range(12):
        clock[0] += 5
        lines += here.lines("working")
    assert len(lines) == 1
    assert "host 1 has shown no sign of life for" in lines[0]


def test_slow_reads_of_some_signs_are_not_the_silence_of_others(tmp_path, monkeypatch):
    """Of 8 hosts that all give a sign every 5 s, reading one takes 12 s."""
    clock = [0.0]
    hearts = [
        heartbeat.Heartbeat(tmp_path, i, 8, silent=40.0, now=lambda: clock[0]) for i in range(8)
    ]
    read_json = heartbeat.atomic.read_json

    def slow(path):
        clock[0] += 12
        for heart in hearts[1:]:
            heart.beat("working")
        return read_json(path)

    monkeypatch.setattr(heartbeat.atomic, "read_json", slow)
    for _ in range(5):
        assert not [line for line in hearts[0].lines("working") if "no sign" in line]


def test_a_host_that_can_write_no_sign_says_so_once_and_accuses_nobody(tmp_path, monkeypatch):
    clock, lines = [0.0], []
    here, there = pair(tmp_path, clock)
    write_json = heartbeat.atomic.write_json

    def full(path, sign):
        raise OSError(f"cannot write {path}: No space left on device")

    there.beat("working")
    monkeypatch.setattr(heartbeat.atomic, "write_json", full)
    for _ in range(30):
        clock[0] += 5
        here.beat("working")
        lines += here.lines("working")
    (line,) = lines
    assert line.startswith(f"working: cannot write {tmp_path}/0.json: No space left on device; ")
    monkeypatch.setattr(heartbeat.atomic, "write_json", write_json)
    here.beat("working")
    there.beat("working")
    assert here.lines("working") == []


def test_signs_of_an_earlier_command_say_nothing(tmp_path):
    clock = [0.0]
    _, before = pair(tmp_path, clock, run=1)
    before.beat("working", ended=True, error="disk full")
    here, there = pair(tmp_path, clock, run=2)
    assert here.lines("working") == []
    there.beat("working", ended=True, error="other")
    assert here.lines("at x") == ["at x: host 1 failed; its log has more: other"]
    assert here.lines("at x") == []


@pytest.fixture
def two_hosts(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "JAX_PLATFORMS": "cpu"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen(
            [sys.executable, __file__, str(number), str(port), str(tmp_path)],
            env=environment, text=True, **pipes,
        )
        for number in range(2)
    ]  # fmt: skip
    yield both
    for process in both:
        process.kill()
        process.communicate()


def test_a_stopped_process_is_named_by_the_one_that_waits(two_hosts):
    """SIGSTOP, as of a machine that hangs; then it goes on, and both end."""
    first, second = two_hosts
    for process in two_hosts:
        assert "ready" in next(line for line in process.stdout if "peer ranks" not in line)
    second.send_signal(signal.SIGSTOP)
    print(file=first.stdin, flush=True)
    lines, named, is_back = [], threading.Event(), threading.Event()

    def read():
        for line in first.stderr:
            lines.append(line)
            if "'second': host 1 has shown no sign of life" in line:
                named.set()
            if line == "host 1 is back\n" and named.is_set():
                is_back.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    patience.until(named.is_set, first)
    second.send_signal(signal.SIGCONT)
    print(file=second.stdin, flush=True)
    patience.until(is_back.is_set, first)
    for process in two_hosts:
        print(file=process.stdin, flush=True)
    for process in two_hosts:
        process.wait()
    reader.join()
    (line,) = (line for line in lines if "'second': host 1 has shown no sign" in line)
    assert line.startswith("waiting at 'second': ")
    assert line.endswith(" s, last seen working\n")
    assert [process.returncode for process in two_hosts] == [0, 0]


def main():
    import jax

    number, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
    with heartbeat.of_hosts(folder, every=0.5, silent=10.0):
        hosts.barrier("first")
        print("ready", flush=True)
        sys.stdin.readline()
        hosts.barrier("second")
        sys.stdin.readline()


if __name__ == "__main__":
    main()
