"""A host that is killed, or fails alone, ends the others, which say so; nobody hangs.

This file is also the script of these hosts.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import patience
import pytest

from ssldiff_jax.train import gone, heartbeat, hosts

ROOT = pathlib.Path(__file__).parents[2]
GONE = "another process of this run is gone"


def run(folder, what, count=2):
    """Status and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(number), str(count), str(port), str(folder), what],
            env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        return [
            (process.returncode, errors)
            for process in processes
            for _, errors in [patience.communicate(process)]
        ]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("where", ["barrier", "first"])
def test_a_killed_host_ends_the_others_with_one_line(tmp_path, where):
    """Not when jax misses it: that would abort them, after 100 s."""
    others = run(tmp_path, f"killed at {where}")
    assert others[1][0] == -signal.SIGKILL
    status, errors = others[0]
    assert status == 1
    (line,) = (line for line in errors.splitlines() if GONE in line)
    assert line.startswith("error: ")
    assert "the same command resumes" in line
    assert "Traceback" not in errors


def test_a_host_that_fails_alone_is_named_by_the_others(tmp_path):
    first, second, third = run(tmp_path, "fails", 3)
    assert second[0] == 1
    assert "error: no room for shard 7" in second[1].splitlines()
    for status, errors in (first, third):
        # Where the first one ends, jax may end the others before they say so themselves.
        assert status in (1, -signal.SIGABRT)
        assert "host 1 failed; its log has more: no room for shard 7" in errors
    assert first[0] == 1
    assert GONE in first[1]


def test_what_the_first_host_failed_for_is_not_lost_with_another(tmp_path):
    """It fails in what it does alone, and the one that waits for it is gone."""
    (status, errors), _ = run(tmp_path, "both")
    assert status == 1
    assert "error: no room for shard 7" in errors.splitlines()


def work(what, number):
    def fail():
        raise OSError("no room for shard 7")

    if what == "both":
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        hosts.on_first_host("shards", fail)
    if number == 1:
        if what == "fails":
            fail()
        os.kill(os.getpid(), signal.SIGKILL)
    if what.endswith("first"):
        hosts.on_first_host("shards", lambda: None)
    hosts.barrier("second")


def main():
    import jax

    number, count, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    folder, what = pathlib.Path(sys.argv[4]), sys.argv[5]
    import logging

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
    with gone.leaving():
        try:
            with heartbeat.of_hosts(folder, every=0.5), gone.missed():
                hosts.barrier("first")
                work(what, number)
        except (OSError, gone.GoneError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
