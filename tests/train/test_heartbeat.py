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
    assert first.lines("working") == []
    clock[0] = 9.0
    assert first.lines("working") == [
        "working: host 2 has shown no sign of life for 9 s, last seen waiting at 'x'"
    ]


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
